//! The device tree the machine hands to its guest: QEMU's `virt` in nodes, properties, order and values, without the
//! nodes of devices that are not here (PCI, the platform bus, the PMU; flash, unless it has contents).

use std::cmp::Reverse;
use std::io::Read;

use devicetree::Node;
use frontend::Extension;

use crate::board::{self, Kind};
use crate::bus::{Bus, Phandles};
use crate::clock::TIMEBASE_FREQUENCY;
use crate::cpu_model::{CpuModel, mmu_type};
use crate::devices::{cfi_flash, fw_cfg, sifive_test};

/// Bytes in a cache block, for Zicbom, Zicbop and Zicboz.
const CACHE_BLOCK: u32 = 64;

/// The children of `/soc`, first to last. Several of a kind go from the highest address to the lowest: so the device
/// in the last virtio slot is found first, and becomes `vda`.
const SOC_ORDER: [Kind; 6] = [Kind::Rtc, Kind::Uart0, Kind::Test, Kind::Virtio, Kind::Plic, Kind::Clint];

/// What the tree says beyond the board and its devices.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// Number of harts, at least 1; their ids count from 0.
    pub harts: usize,
    /// What each of them is.
    pub cpu: &'a CpuModel,
    /// Bytes of main memory.
    pub memory: u64,
    /// The kernel command line.
    pub bootargs: Option<&'a str>,
    /// Physical address of the initial RAM disk, and of its end.
    pub initrd: Option<(u64, u64)>,
    /// Entropy for the kernel, fresh for each start; [`host_rng_seed`] has some.
    pub rng_seed: [u8; 32],
}

/// The tree for a machine with the devices of `bus`, which were placed with `phandles`.
pub fn build(config: &Config<'_>, bus: &Bus, phandles: &Phandles) -> Node {
    let has = |kind| bus.devices().any(|(place, _)| place.kind == kind);
    let mut root = Node::new("");
    root.set_u32("#address-cells", 2)
        .set_u32("#size-cells", 2)
        .set_string("compatible", "riscv-virtio")
        .set_string("model", "riscv-virtio,qemu");
    if has(Kind::Test) {
        sifive_test::fdt_syscon(&mut root, phandles.test);
    }
    root.child(&format!("memory@{:x}", board::RAM_BASE))
        .set_string("device_type", "memory")
        .set_reg(&[(board::RAM_BASE, config.memory)]);
    cpus(root.child("cpus"), config, phandles);
    if has(Kind::FwCfg) {
        fw_cfg::fdt_node(&mut root);
    }
    if has(Kind::Flash) {
        cfi_flash::fdt_banks(&mut root);
    }
    let console = format!("/soc/serial@{:x}", board::region(Kind::Uart0).base);
    if has(Kind::Uart0) {
        root.child("aliases").set_string("serial0", &console);
    }
    chosen(root.child("chosen"), config, has(Kind::Uart0).then_some(console.as_str()));
    soc(root.child("soc"), bus);
    root
}

/// 32 bytes from the host's random number generator.
///
/// # Errors
/// When the host has none.
pub fn host_rng_seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

fn cpus(cpus: &mut Node, config: &Config<'_>, phandles: &Phandles) {
    cpus.set_u32("#address-cells", 1)
        .set_u32("#size-cells", 0)
        .set_u32("timebase-frequency", u32::try_from(TIMEBASE_FREQUENCY).unwrap_or(u32::MAX));
    for (hart, (&cpu, &intc)) in
        phandles.cpu.iter().zip(phandles.cpu_intc.iter()).take(config.harts).enumerate()
    {
        let node = cpus.child(&format!("cpu@{hart}"));
        node.set_u32("phandle", cpu)
            .set_string("device_type", "cpu")
            .set_u32("reg", u32::try_from(hart).unwrap_or(u32::MAX))
            .set_string("status", "okay")
            .set_string("compatible", "riscv");
        // Linux drops an extension whose block size is not given.
        for (extension, property) in [
            (Extension::Zicbop, "riscv,cbop-block-size"),
            (Extension::Zicboz, "riscv,cboz-block-size"),
            (Extension::Zicbom, "riscv,cbom-block-size"),
        ] {
            if config.cpu.has(extension) {
                node.set_u32(property, CACHE_BLOCK);
            }
        }
        node.set_strings("riscv,isa-extensions", &config.cpu.isa_extensions())
            .set_string("riscv,isa-base", "rv64i")
            .set_string("riscv,isa", &config.cpu.isa_string())
            .set_string("mmu-type", mmu_type(config.cpu.max_satp()));
        node.child("interrupt-controller")
            .set_u32("#interrupt-cells", 1)
            .set_empty("interrupt-controller")
            .set_string("compatible", "riscv,cpu-intc")
            .set_u32("phandle", intc);
    }
    let cluster = cpus.child("cpu-map").child("cluster0");
    for (hart, &cpu) in phandles.cpu.iter().take(config.harts).enumerate() {
        cluster.child(&format!("core{hart}")).set_u32("cpu", cpu);
    }
}

fn chosen(chosen: &mut Node, config: &Config<'_>, console: Option<&str>) {
    if let Some(bootargs) = config.bootargs {
        chosen.set_string("bootargs", bootargs);
    }
    if let Some((start, end)) = config.initrd {
        chosen.set_u64("linux,initrd-end", end).set_u64("linux,initrd-start", start);
    }
    if let Some(console) = console {
        chosen.set_string("stdout-path", console);
    }
    chosen.set_bytes("rng-seed", config.rng_seed);
}

fn soc(soc: &mut Node, bus: &Bus) {
    soc.set_u32("#address-cells", 2)
        .set_u32("#size-cells", 2)
        .set_string("compatible", "simple-bus")
        .set_empty("ranges");
    let mut devices: Vec<_> = bus.devices().collect();
    devices.sort_by_key(|(place, _)| {
        (
            SOC_ORDER.iter().position(|&kind| kind == place.kind).unwrap_or(SOC_ORDER.len()),
            Reverse(place.base),
        )
    });
    for (place, device) in devices {
        device.fdt(place, soc);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use softmmu::{AccessFault, GuestMemory};

    use super::*;
    use crate::bus::{MmioDevice, Placement};
    use crate::clock::Clock;
    use crate::console::{Room, Sink};
    use crate::devices::clint::Clint;
    use crate::devices::fw_cfg::FwCfg;
    use crate::devices::plic::Plic;
    use crate::devices::rtc_goldfish::RtcGoldfish;
    use crate::devices::sifive_test::SifiveTest;
    use crate::devices::uart16550::Uart16550;
    use crate::hart::shared::HartShared;
    use crate::irq::IrqLine;
    use crate::timer::Timers;

    /// Stands in for a virtio-mmio transport, whose node is the same for every device behind it.
    struct Slot;

    impl MmioDevice for Slot {
        fn name(&self) -> &'static str {
            "slot"
        }
        fn read(&self, _offset: u64, _width: u8) -> Result<u64, AccessFault> {
            Ok(0)
        }
        fn write(&self, _offset: u64, _width: u8, _value: u64) -> Result<(), AccessFault> {
            Ok(())
        }
        fn reset(&self) {}
        fn fdt(&self, place: &Placement, parent: &mut Node) {
            parent
                .child(&format!("virtio_mmio@{:x}", place.base))
                .set_u32("interrupts", place.irq.unwrap())
                .set_u32("interrupt-parent", place.phandles.plic)
                .set_reg(&[(place.base, place.size)])
                .set_string("compatible", "virtio,mmio");
        }
    }

    fn board(harts: usize) -> (Bus, Phandles) {
        let clock = Arc::new(Clock::new());
        let harts: Vec<_> = (0..harts).map(|_| Arc::new(HartShared::new())).collect();
        let timers = Arc::new(Timers::new(Arc::clone(&clock), &harts).unwrap());
        let plic = Arc::new(Plic::new(&harts));
        let phandles = Phandles::new(harts.len());
        let at = |kind, index| board::place(kind, index, &phandles);
        let line = |irq| IrqLine::new(plic.clone(), irq);
        let memory = GuestMemory::new(board::RAM_BASE, 1 << 20).unwrap();
        let mut devices: Vec<(Placement, Arc<dyn MmioDevice>)> = vec![
            (at(Kind::Clint, 0), Arc::new(Clint::new(clock, Arc::clone(&timers), &harts))),
            (at(Kind::Plic, 0), plic.clone()),
            (at(Kind::Test, 0), Arc::new(SifiveTest::new(|_| ()))),
            (at(Kind::FwCfg, 0), Arc::new(FwCfg::new(memory, 1, None, BTreeMap::new()))),
            (at(Kind::Rtc, 0), RtcGoldfish::new(line(11), &timers)),
            (at(Kind::Uart0, 0), Arc::new(Uart16550::new(line(10), Sink::null(), Room::default()))),
        ];
        for index in 0..board::VIRTIO_SLOTS {
            devices.push((at(Kind::Virtio, index), Arc::new(Slot)));
        }
        (Bus::new(devices).unwrap(), phandles)
    }

    fn config(harts: usize, cpu: &CpuModel) -> Config<'_> {
        Config { harts, cpu, memory: 0x800_0000, bootargs: None, initrd: None, rng_seed: [0x5a; 32] }
    }

    /// The text of the tree without the lines that are meant to differ from QEMU's.
    fn comparable(dts: &str) -> Vec<&str> {
        let differs = |line: &&str| {
            let property = line.trim_start();
            property.starts_with("rng-seed = ")
                || property.starts_with("riscv,isa = ")
                || property.starts_with("riscv,isa-extensions = ")
        };
        dts.lines().filter(|line| !differs(line)).collect()
    }

    /// Every node and property in the same order with the same value, phandles included.
    #[track_caller]
    fn assert_same(ours: &Node, qemu: &str) {
        let ours = devicetree::to_dts(ours);
        let (ours, qemu) = (comparable(&ours), comparable(qemu));
        for (index, (ours, qemu)) in ours.iter().zip(&qemu).enumerate() {
            assert_eq!(ours, qemu, "comparable line {index}");
        }
        assert_eq!(ours.len(), qemu.len());
    }

    #[test]
    fn the_tree_of_one_hart_is_qemus() {
        let (bus, phandles) = board(1);
        let tree = build(&config(1, &CpuModel::default()), &bus, &phandles);
        assert_same(&tree, include_str!("../testdata/virt-smp1.dts"));
    }

    #[test]
    fn the_tree_of_four_harts_is_qemus() {
        let (bus, phandles) = board(4);
        let tree = build(&config(4, &CpuModel::default()), &bus, &phandles);
        assert_same(&tree, include_str!("../testdata/virt-smp4.dts"));
    }

    #[test]
    fn chosen_has_bootargs_and_initrd_as_qemu_has_them() {
        let (bus, phandles) = board(1);
        let cpu = CpuModel::default();
        let config = Config {
            memory: 0x1_0000_0000,
            bootargs: Some("console=ttyS0 root=/dev/vda1"),
            initrd: Some((0xa020_0000, 0xa021_86a0)),
            ..config(1, &cpu)
        };
        let tree = build(&config, &bus, &phandles);
        assert_same(&tree, include_str!("../testdata/virt-kernel-initrd-append.dts"));
    }

    #[test]
    fn the_tree_can_be_flattened_and_read_back() {
        let (bus, phandles) = board(4);
        let tree = build(&config(4, &CpuModel::default()), &bus, &phandles);
        assert_eq!(devicetree::parse(&devicetree::flatten(&tree, 0, &[]).unwrap()).unwrap(), tree);
    }

    #[test]
    fn block_sizes_are_given_only_with_their_extensions() {
        let (bus, phandles) = board(1);
        let cpu: CpuModel = "rv64,zicboz=off".parse().unwrap();
        let tree = build(&config(1, &cpu), &bus, &phandles);
        let node = tree.find("/cpus/cpu@0").unwrap();
        assert!(node.property("riscv,cboz-block-size").is_none());
        assert_eq!(node.property("riscv,cbom-block-size").unwrap().as_u32(), Some(64));
        assert!(!node.property("riscv,isa").unwrap().as_str().unwrap().contains("zicboz"));
    }

    #[test]
    fn absent_devices_are_not_mentioned() {
        let tree = build(&config(1, &CpuModel::default()), &Bus::new(vec![]).unwrap(), &Phandles::new(1));
        assert!(tree.find("/poweroff").is_none());
        assert!(tree.find("/aliases").is_none());
        assert!(tree.find("/chosen").unwrap().property("stdout-path").is_none());
        assert!(tree.find("/soc").unwrap().children.is_empty());
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(host_rng_seed().unwrap(), host_rng_seed().unwrap());
    }
}
