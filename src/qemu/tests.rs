//! Command lines from manuals and scripts, and what they become.

use super::*;

/// The `hartvm run` of a command line, which is written as in a shell, without quotes.
fn run(line: &str) -> String {
    let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    let flags = parse(&arguments).and_then(Guest::flags).unwrap_or_else(|error| panic!("{line}: {error}"));
    // Every flag and value is one that `hartvm run` takes.
    let command = ["hartvm", "run"].into_iter().map(String::from).chain(flags.iter().cloned());
    Cli::try_parse_from(command).unwrap_or_else(|error| panic!("{line}: {error}"));
    flags.join(" ")
}

/// The refusal of a command line.
fn refusal(line: &str) -> String {
    let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    match parse(&arguments).and_then(Guest::flags) {
        Ok(flags) => panic!("{line} becomes {flags:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn ubuntus_manual() {
    assert_eq!(
        run("-cpu rva23s64 -machine virt,acpi=off -m 4G -smp cpus=2 -nographic \
             -kernel /usr/lib/u-boot/qemu-riscv64_smode/uboot.elf -netdev user,id=net0 -device virtio-net-device,netdev=net0 \
             -device virtio-rng-pci -drive file=ubuntu.img,format=raw,if=virtio"),
        "--cpu rva23s64 --cpus 2 --kernel /usr/lib/u-boot/qemu-riscv64_smode/uboot.elf --memory 4096M --net user \
         --virtio-legacy --disk ubuntu.img,format=raw"
    );
    assert_eq!(
        run("-cpu rva23s64 -machine virt,acpi=off -m 4G -smp cpus=2 -nographic \
             -drive if=pflash,format=raw,unit=0,file=/usr/share/qemu-efi-riscv64/RISCV_VIRT_CODE.fd,readonly=on \
             -drive if=pflash,format=raw,unit=1,file=RISCV_VIRT_VARS.fd,readonly=off \
             -netdev user,id=net0 -device virtio-net-device,netdev=net0 -device virtio-rng-pci \
             -drive file=ubuntu.img,format=raw,if=virtio"),
        "--cpu rva23s64 --cpus 2 --memory 4096M --net user \
         --uefi /usr/share/qemu-efi-riscv64/RISCV_VIRT_CODE.fd,vars=RISCV_VIRT_VARS.fd --virtio-legacy \
         --disk ubuntu.img,format=raw"
    );
    assert_eq!(
        run(
            "-machine virt -m 4G -smp cpus=2 -nographic -kernel /usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin \
             -netdev user,id=net0 -device virtio-net-device,netdev=net0 -drive file=disk,format=raw,if=virtio \
             -drive file=live-server-riscv64.iso,format=raw,if=virtio -device virtio-rng-pci"
        ),
        "--cpus 2 --kernel /usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin --memory 4096M --net user --virtio-legacy \
         --disk disk,format=raw --disk live-server-riscv64.iso,format=raw"
    );
}

#[test]
fn kernels_and_teaching_systems() {
    assert_eq!(
        run("-machine virt -bios none -kernel kernel/kernel -m 128M -smp 3 -nographic \
             -global virtio-mmio.force-legacy=false -drive file=fs.img,if=none,format=raw,id=x0 \
             -device virtio-blk-device,drive=x0,bus=virtio-mmio-bus.0"),
        "--cpus 3 --firmware none --kernel kernel/kernel --memory 128M --net none --disk fs.img,format=raw --slot 0=0"
    );
    assert_eq!(
        run(
            "-machine virt -nographic -bios ../bootloader/rustsbi-qemu.bin -device loader,file=os.bin,addr=0x80200000 \
             -drive file=fs.img,if=none,format=raw,id=x0 -device virtio-blk-device,drive=x0,bus=virtio-mmio-bus.0 \
             -kernel os"
        ),
        "--cpus 1 --firmware ../bootloader/rustsbi-qemu.bin --kernel os --memory 128M --net none --virtio-legacy \
         --load os.bin,addr=0x80200000 --disk fs.img,format=raw --slot 0=0"
    );
    assert_eq!(
        run(
            "-M virt -kernel Image -initrd rootfs.cpio.gz -append root=/dev/vda -dtb virt.dtb -m 2048 -no-reboot \
             -serial mon:stdio -display none -monitor none -cpu max,sv39=on,v=false,pmp=true"
        ),
        "--append root=/dev/vda --cpu max,sv39=on --cpus 1 --dtb virt.dtb --initrd rootfs.cpio.gz --kernel Image --memory 2048M \
         --net none --no-reboot"
    );
}

#[test]
fn debuggers_and_logs() {
    assert_eq!(
        run(
            "-M virt -kernel a -S -s -d in_asm,int,op,op_opt -D log.txt -pidfile pid -name guest=x -rtc base=utc,clock=host"
        ),
        "--cpus 1 --gdb 1234 --gdb-wait --kernel a --memory 128M --name x --net none --pidfile pid --trace guest,int,ir:log.txt"
    );
    assert!(run("-kernel a -gdb tcp:127.0.0.1:99").contains("--gdb 127.0.0.1:99"));
    assert!(refusal("-kernel a -S").contains("-s"));
    assert!(refusal("-kernel a -D log").contains("-d"));
    assert!(refusal("-kernel a -d cpu").contains("in_asm"));
    assert!(run("-kernel a -gdb unix:/tmp/x,server=on,wait=off").contains("--gdb /tmp/x"));
    assert!(refusal("-kernel a -gdb stdio").contains("tcp::1234"));
}

#[test]
fn disks_in_the_order_of_qemu() {
    // What -device names is there before what has its device with it.
    assert!(
        run("-kernel k -drive file=b,if=virtio -drive if=none,id=x,file=a -device virtio-blk-pci,drive=x")
            .ends_with("--disk a --disk b")
    );
    assert!(run("-kernel k -drive file=b,index=1 -hda a").ends_with("--disk a --disk b"));
    assert!(
        run("-kernel k -snapshot a,,b -cdrom c.iso")
            .ends_with("--disk a,,,,b,snapshot --disk c.iso,readonly,snapshot")
    );
    assert!(
        run("-kernel k -drive file=a,readonly,format=qcow2,cache=none,discard=unmap,werror=report")
            .ends_with("--disk a,readonly,format=qcow2")
    );
}

#[test]
fn disks_have_serial_numbers_and_may_keep_what_is_discarded() {
    assert!(
        run("-kernel k -drive file=a,serial=x,discard=ignore").ends_with("--disk a,serial=x,discard=ignore")
    );
    assert!(
        run("-kernel k -drive file=a,if=none,id=d,discard=unmap -device virtio-blk-pci,drive=d,serial=y")
            .ends_with("--disk a,serial=y")
    );
    assert!(refusal("-device virtio-blk-pci,drive=d,serial=y").contains("id=d"));
    assert!(refusal("-drive file=a,discard=often").contains("discard=unmap"));
}

#[test]
fn every_virtio_device_can_have_a_slot() {
    let line = "-kernel k -netdev user,id=n -device virtio-net-device,netdev=n,bus=virtio-mmio-bus.3 \
                -device virtio-rng-device,bus=virtio-mmio-bus.4 -chardev stdio,id=c \
                -device virtio-serial-device,bus=virtio-mmio-bus.5 -device virtconsole,chardev=c";
    let flags = run(line);
    for flag in ["--slot net=3", "--slot rng=4", "--slot console=5", "--virtio-console", "--net user"] {
        assert!(flags.contains(flag), "{flag} is not in {flags}");
    }
}

/// QEMU would start firmware that looks for nothing.
#[test]
fn a_disk_alone_is_booted() {
    assert_eq!(
        run("-m 1G -hda a.img -hdb b.img -bios default"),
        "a.img --cpus 1 --firmware sbi --memory 1024M --net none --disk b.img"
    );
    assert!(run("-drive file=-a,snapshot=on").starts_with("./-a,snapshot "));
    let second = "-drive file=b,if=none,id=y -device virtio-blk-device,drive=y,bus=virtio-mmio-bus.2";
    let first = "-drive file=a,if=none,id=x -device virtio-blk-pci,drive=x";
    assert!(run(&format!("{first} {second}")).ends_with("--disk b --slot 0=2"));
    assert!(run(second).starts_with("b ") && run(second).ends_with("--slot image=2"));
    assert!(refusal(&second.replace("bus.2", "bus.8")).contains("virtio-mmio-bus.0 to .7"));
    assert!(refusal(&second.replace("blk-device", "blk-pci")).contains("bus="));
    assert!(run("-hda a.img -bios fw.bin").ends_with("--disk a.img"));
}

#[test]
fn images_by_name() {
    assert!(
        run("-kernel k -blockdev driver=file,node-name=f,filename=a -blockdev driver=qcow2,node-name=q,file=f,read-only=on \
             -device virtio-blk-device,drive=q")
        .ends_with("--virtio-legacy --disk a,readonly,format=qcow2")
    );
    assert!(
        run("-blockdev node-name=c,driver=raw,read-only=on,file.driver=file,file.filename=C -M virt,pflash0=c -snapshot").contains("--uefi C,vars=none")
    );
    assert!(
        run("-pflash C -kernel K -initrd I -append quiet")
            .contains("--append quiet --cpus 1 --initrd I --kernel K")
    );
    assert!(run("-pflash C -pflash V -snapshot").contains("--uefi C,vars=V,snapshot"));
    assert!(refusal("-device virtio-blk-device,drive=x").contains("id=x"));
    assert!(refusal("-drive if=none,file=a").contains("id=ID"));
    assert!(refusal("-drive if=scsi,file=a").contains("if=virtio"));
    assert!(refusal("-drive file=a,format=vmdk").contains("qemu-img convert"));
    assert!(refusal("-drive file=http://x/y").contains("download"));
    assert!(refusal("-drive file=a,id=x -drive file=b,id=x").contains("twice"));
    assert!(refusal("-drive if=pflash,unit=2,file=a").contains("unit=0"));
    assert!(refusal("-pflash a -kernel b -bios none").contains("-bios none"));
    assert!(
        refusal("-drive if=none,id=x,file=a -drive if=none,id=y,file=b -device virtio-blk-pci,drive=x,bootindex=2 -device virtio-blk-pci,drive=y,bootindex=1")
            .contains("in that order")
    );
}

#[test]
fn networks() {
    assert!(
        run("-nic user,hostfwd=tcp::2222-:22,model=virtio-net-pci")
            .contains("--net user,hostfwd=tcp::2222-:22")
    );
    assert!(
        run("-net nic,model=virtio -net user,hostfwd=udp::53-:53,restrict=on")
            .contains("--net user,restrict=on,hostfwd=udp::53-:53")
    );
    assert!(run("-netdev user,id=n,hostfwd=tcp::1-:2,hostfwd=tcp::3-:4 -device virtio-net-pci,netdev=n,mac=52:54:00:12:34:56")
        .contains("--net user,hostfwd=tcp::1-:2,hostfwd=tcp::3-:4,mac=52:54:00:12:34:56"));
    assert!(run("-nic none").contains("--net none"));
    assert!(
        run("-nic user,net=10.0.2.0/24,dhcpstart=10.0.2.15,ipv6=off,mac=52:54:00:00:00:01")
            .contains("--net user,ipv6=off,mac=52:54:00:00:00:01")
    );
    assert!(refusal("-netdev user,id=n,net=192.168.1.0/24").contains("10.0.2.0/24"));
    assert!(refusal("-netdev user,id=n,smb=/tmp").contains("hostfwd"));
    assert!(refusal("-netdev user,id=n,hostfwd=tcp::x-:22").contains("hostfwd=tcp::2222-:22"));
    assert!(refusal("-netdev tap,id=n").contains("user"));
    assert!(refusal("-device virtio-net-pci,netdev=n").contains("-netdev user,id=n"));
    assert!(refusal("-nic user -nic user").contains("all but one"));
    assert!(refusal("-device e1000,netdev=n").contains("virtio-net-pci"));
}

#[test]
fn consoles() {
    assert!(run("-serial file:log -kernel a").contains("--serial file:log"));
    assert!(run("-serial none -device virtio-serial-device -chardev stdio,id=c,mux=on -device virtconsole,chardev=c")
        .ends_with("--serial none --virtio-console --virtio-legacy"));
    assert!(run("-chardev file,id=c,path=log -serial chardev:c").contains("--serial file:log"));
    assert!(!run("-serial stdio -serial null").contains("--serial"));
    assert!(refusal("-serial tcp::4444").contains("file"));
    assert!(refusal("-serial stdio -serial file:x").contains("one serial port"));
    assert!(refusal("-device virtconsole").contains("chardev=ID"));
    assert!(refusal("-monitor stdio").contains("-monitor none"));
}

#[test]
fn processors_and_memory() {
    for (value, cpus) in [
        ("4", "4"),
        ("cpus=2,sockets=1", "2"),
        ("4,sockets=1,cores=4,threads=1", "4"),
        ("cores=2,threads=2", "4"),
        ("2,maxcpus=2", "2"),
    ] {
        assert!(run(&format!("-smp {value}")).contains(&format!("--cpus {cpus} ")), "{value}");
    }
    assert!(refusal("-smp 2,maxcpus=4").contains("maxcpus"));
    assert!(refusal("-smp none").contains("number"));
    assert!(run("-m size=1G,slots=2,maxmem=1G").contains("--memory 1024M"));
    assert!(refusal("-m 1G,maxmem=2G").contains("later"));
    assert!(refusal("-m lots").contains("4G"));
    assert!(refusal("-cpu max,v=true,vlen=256").contains("v=on"));
    assert!(refusal("-cpu max,vlen=256").contains("no vector unit"));
    assert!(refusal("-cpu host").contains("rv64"));
    assert!(refusal("-cpu rv64,mmu=off").contains("no hart is without it"));
    assert!(run("-cpu rv64,Zba=off,zvbb=off,H=false").contains("--cpu rv64,zba=off "));
}

#[test]
fn machines() {
    assert!(run("-M virt,accel=tcg,aclint=off,aia=none,usb=off,memory-backend=m -object memory-backend-ram,id=m,size=128M").contains("--memory 128M"));
    assert!(run("-machine type=virt,dumpdtb=x").contains("--dump-dtb x"));
    assert!(
        run("-accel tcg,thread=multi,tb-size=1024 -bios opensbi-riscv64-generic-fw_dynamic.bin")
            .contains("--firmware sbi")
    );
    assert!(run("-bios default").contains("--firmware sbi"));
    for (line, word) in [
        ("-M sifive_u", "virt"),
        ("-M virt,aia=aplic-imsic", "aia=none"),
        ("-M virt,acpi=on", "acpi=off"),
        ("-M virt,warp=9", "`warp`"),
        ("-accel kvm", "tcg"),
        ("-rtc base=localtime", "base=utc"),
        ("-global virtio-pci.disable-modern=on", "force-legacy"),
        ("-object memory-backend-ram,id=m,size=64M", "-m"),
        ("-object secret,id=s", "rng-random"),
        ("-device virtio-gpu-pci", "-nographic"),
        ("-device warp", "-device help"),
        ("-device loader,addr=1,data=2,data-len=4", "file=FILE"),
        ("-device loader,file=a,cpu-num=0", "no hart"),
        ("-append x", "-kernel"),
        ("-nographics", "-nographic"),
        ("-warp", "-help"),
        ("-kernel", "-kernel FILE"),
        ("-daemonize", "nohup"),
        ("-virtfs local", "folders"),
    ] {
        let text = refusal(line);
        assert!(text.contains(word), "{line}: {text}");
    }
}

#[test]
fn items_by_name() {
    assert!(
        run("-kernel k -fw_cfg name=opt/a,string=b,,c -fw_cfg opt/d,file=e")
            .ends_with("--fw-cfg opt/a,string=b,,c --fw-cfg opt/d,file=e")
    );
    for (value, word) in [
        ("string=a", "name=opt/NAME"),
        ("name=,string=a", "name=opt/NAME"),
        ("opt/a", "either string=TEXT or file=FILE"),
        ("opt/a,string=", "either string=TEXT or file=FILE"),
        ("opt/a,string=b,file=c", "either string=TEXT or file=FILE"),
        ("opt/a,gen_id=x", "no object"),
        ("opt/a,string=b,size=1", "`size`"),
    ] {
        let text = refusal(&format!("-fw_cfg {value}"));
        assert!(text.contains(word), "{value}: {text}");
    }
}

#[test]
fn names_of_guests() {
    for (given, name) in [("vm", "vm"), ("guest=My VM,process=x", "My-VM"), ("12", "guest-12"), ("é", "-")] {
        let arguments: Vec<OsString> = ["-name", given].map(OsString::from).into();
        let flags = parse(&arguments).and_then(Guest::flags).unwrap();
        let at = flags.iter().position(|flag| flag.starts_with("--name")).unwrap();
        assert!(flags[at..].join("=").contains(&format!("--name={name}")), "{flags:?}");
    }
}

#[test]
fn names_of_the_program() {
    for name in ["qemu-system-riscv64", "/usr/bin/qemu-system-riscv64", "./qemu-system-riscv64.exe"] {
        assert!(is_qemu(name.as_ref()), "{name}");
    }
    for name in ["hartvm", "", "/", "qemu-system-riscv32", "qemu-system-riscv64/x"] {
        assert!(!is_qemu(name.as_ref()), "{name}");
    }
}

#[test]
fn no_option_is_in_two_rows_and_each_says_something() {
    let mut seen = std::collections::HashSet::new();
    for row in TABLE {
        assert!(row.about.len() > 5);
        for name in row.names {
            assert!(seen.insert(name), "{name}");
        }
    }
}

#[test]
fn words_for_a_shell() {
    assert_eq!(["a,b=c", "", "it's", "a b"].map(shell), ["a,b=c", "''", "'it'\\''s'", "'a b'"]);
    assert_eq!(
        [("abc", "abd"), ("", "ab"), ("nographics", "nographic")].map(|(a, b)| distance(a, b)),
        [1, 2, 1]
    );
}

/// Rubbish is refused, and that is all that it does.
#[test]
fn rubbish() {
    let words = [
        "-drive",
        "-device",
        "-m",
        "-smp",
        "-cpu",
        "file=",
        "if=none",
        "id=",
        ",",
        ",,",
        "=",
        "-",
        "--",
        "virtio-blk-device",
        "drive=",
        "-netdev",
        "user",
        "-M",
        "virt",
        "-gdb",
        "tcp:",
        "0x",
        "-blockdev",
        "{",
        "-serial",
        "chardev:",
        "-d",
        "99999999999999999999",
        "é",
        "bus=virtio-mmio-bus.",
        "-object",
        "-global",
        "-chardev",
        "-rtc",
        "-fw_cfg",
        "string=",
        "-action",
        "on",
        "off",
    ];
    let mut seed = 7_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for _ in 0..20_000 {
        let arguments: Vec<OsString> = (0..next() % 8)
            .map(|_| (0..1 + next() % 3).map(|_| words[next() % words.len()]).collect::<String>().into())
            .collect();
        if let Ok(flags) = parse(&arguments).and_then(Guest::flags) {
            assert!(flags.iter().any(|flag| flag == "--memory"));
        }
    }
}
