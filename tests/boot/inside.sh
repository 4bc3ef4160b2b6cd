# What users see inside of guests, with gdb-multiarch and the profiler: part of tests/boot/run, by which it is sourced.

need_inside() {
    need_packages gdb-multiarch gcc-riscv64-linux-gnu libc6-dev-riscv64-cross curl
}

# need_kernel_symbols: $symbols, which is $kernel with debug information. Debian has it in a package of 1 GB, with that of all modules
# behind it; only the start of the package is fetched, 80 MB.
need_kernel_symbols() {
    local release=${kernel##*/vmlinu?-} version url file
    file=usr/lib/debug/boot/vmlinux-$release
    symbols=guests/symbols/$file
    [ -e "guests/symbols/complete-$release" ] && return
    version=$(zcat "guests/kernel/root/usr/share/doc/linux-image-$release/changelog.Debian.gz" | sed -n '1s/.*(\(.*\)).*/\1/p')
    url=$(mirror_of guests/kernel)/pool/main/l/linux/linux-image-$release-dbg_${version}_riscv64.deb
    say "getting the debug information of Linux $release"
    again get_kernel_symbols "$url" "$file" || get_all_kernel_symbols "$url" "$file" ||
        die "could not get $url; if Debian has a newer kernel by now, remove guests/kernel and start again"
    touch "guests/symbols/complete-$release"
}

# get_kernel_symbols URL FILE: unpacks one file of a package.
get_kernel_symbols() {
    local proxy= scheme=${1%%:*}
    rm -rf guests/symbols
    mkdir -p guests/symbols
    # The way that apt takes.
    eval "$(apt-config shell proxy "Acquire::$scheme::Proxy")"
    [ "$proxy" != DIRECT ] || proxy=
    # Who writes into the pipes is stopped when tar has the file, and complains.
    (set +o pipefail; curl -fsL --connect-timeout 60 --speed-time 60 ${proxy:+--proxy "$proxy"} "$1" 2> /dev/null | dpkg-deb --fsys-tarfile - 2> /dev/null |
        tar -x -C guests/symbols --occurrence=1 "./$2" 2> /dev/null)
}

# get_all_kernel_symbols URL FILE: the same by way of the whole package, which apt fetches as it fetches others.
get_all_kernel_symbols() {
    rm -rf guests/symbols
    mkdir -p guests/symbols
    /usr/lib/apt/apt-helper -o Acquire::Retries=3 download-file "$1" guests/symbols/package.deb > /dev/null || return
    (set +o pipefail; dpkg-deb --fsys-tarfile guests/symbols/package.deb 2> /dev/null |
        tar -x -C guests/symbols --occurrence=1 "./$2") || return
    rm guests/symbols/package.deb
}

# build_program NAME: NAME.c for the guest, at an address that no other program of the guest has.
build_program() {
    riscv64-linux-gnu-gcc -g -O1 -fno-omit-frame-pointer -static -no-pie -Wl,-Ttext-segment=0x30000000 \
        -o "$work/root/$1" "tests/boot/$1.c"
}

# start_debugged ARGUMENT...: a guest that waits for gdb, as the child $debugged.
start_debugged() {
    rm -f "$work/gdb"
    "$hartvm" run --cpus 2 --gdb "$work/gdb" --gdb-wait "$@" < /dev/null > "$work/out" 2>&1 &
    debugged=$!
    wait_for test -S "$work/gdb"
}

# end_debugged: waits for its end, and says its exit status.
end_debugged() {
    local status=0
    wait_for eval "! kill -0 $debugged" || { echo "hartvm goes on"; kill "$debugged"; }
    wait "$debugged" || status=$?
    echo "exit status $status" >> "$work/said"
}

# gdb_script BEFORE LINE...: adds to $work/said what gdb-multiarch says to these commands, the first of which comes before it attaches.
gdb_script() {
    local before=$1
    shift
    # gdb's own patience is two seconds, which a busy machine may try.
    printf '%s\n' 'set pagination off' 'set confirm off' 'set width 0' "set remotetimeout $limit" 'set architecture riscv:rv64' "$before" \
        "target remote $work/gdb" "$@" > "$work/script"
    timeout $limit gdb-multiarch -q -nx -batch -x "$work/script" >> "$work/said" 2>&1 || true
}

# said PATTERN...: whether $work/said has all of these, one after the other. A + in a pattern is no repetition.
said() {
    python3 - "$work/said" "$@" <<'EOF'
import re, sys
text, at = open(sys.argv[1], errors="replace").read(), 0
for pattern in sys.argv[2:]:
    found = re.compile(pattern.replace("+", r"\+"), re.M).search(text, at)
    if not found:
        sys.exit(f"missing: {pattern}\nbehind character {at} of:\n{text}")
    at = found.end()
EOF
}

# debugged NAME ARGUMENT...: a boot through OpenSBI that gdb stops at the kernel's entry, by physical address in M-mode's
# memory, and later at its trap entry, by virtual address; it steps there, leaves, and the guest goes on.
debugged() {
    local name=$1 start=$SECONDS ok=yes
    shift
    : > "$work/said"
    start_debugged --firmware "$opensbi" "${install[@]}" "$@" || ok=no
    gdb_script '' 'break *0x80200000' continue 'printf "entry %lx mode %d\n", $pc, $priv' 'stepi 20' delete detach
    wait_for grep -q -a 'Freeing unused kernel' "$work/out" || ok=no
    gdb_script '' 'info threads' 'hbreak *$stvec' continue 'printf "traps %d mode %d\n", $pc == $stvec, $priv' \
        'delete' 'set $n = 0' 'while $n < 200' stepi 'set $n = $n + 1' end 'printf "steps %d\n", $n' \
        'monitor walk 0xffffffff80000000' 'break *$stvec' continue continue 'printf "again %d\n", $pc == $stvec' kill
    end_debugged
    said 'entry 80200000 mode 1' 'hart 1, ' 'traps 1 mode 1' 'steps 200' 'is at physical 0x80200000' 'again 1' ' killed' \
        '^exit status 0' || ok=no
    result "$name" $((SECONDS - start)) $ok
}

# debugged_kernel NAME ARGUMENT...: gdb with the debug information of the kernel: a function by its name, before there are page
# tables; a variable; the system call that turns the machine off, and who calls it.
debugged_kernel() {
    local name=$1 start=$SECONDS ok=yes
    shift
    : > "$work/said"
    start_debugged --kernel "$kernel" --initrd "$work/initrd.gz" --append 'console=ttyS0 quiet rdinit=/bin/busybox -- poweroff -f' "$@" || ok=no
    gdb_script "file $symbols" 'break start_kernel' continue 'backtrace 2' 'print linux_banner' delete \
        'watch system_state' continue delete 'hbreak __riscv_sys_reboot' continue backtrace \
        'print ((struct task_struct *) $tp)->comm' 'info threads' delete detach
    end_debugged
    said 'Breakpoint 1.*start_kernel \(\)' '^#1 .*_start_kernel \(\) at arch/riscv/kernel/head.S' \
        "\"Linux version ${kernel##*/vmlinu?-} " 'Old value = SYSTEM_BOOTING\nNew value = SYSTEM_SCHEDULING\nrest_init \(\)' \
        'reakpoint 3.*__riscv_sys_reboot \(' '^#. .*do_trap_ecall_u \(' '^#. .*handle_exception \(\)' '= "busybox' \
        '1\.2 \(hart 1, S-mode' 'detached' '^exit status 0' || ok=no
    result "$name" $((SECONDS - start)) $ok
}

# debugged_program NAME ARGUMENT...: gdb in tests/boot/counter.c, whose four processes share the page that has the breakpoints. They
# are met in each process, by both kinds of breakpoint; one process is picked by a condition; its copy of a variable is watched; gdb
# steps into the kernel and back, unless the kernel takes the occasion to switch to another task, or over it. All processes have
# then counted as if nobody had looked.
debugged_program() {
    local name=$1 start=$SECONDS ok=yes
    shift
    : > "$work/said"
    start_debugged --kernel "$kernel" --initrd "$work/initrd.gz" --append 'console=ttyS0 quiet rdinit=/init-debug' "$@" || ok=no
    # For a program of Linux, gdb makes steps of breakpoints, which any process may meet, unless it is told that there is no Linux.
    gdb_script "set osabi none
file $work/root/counter" 'break work' 'hbreak ask' 'set $seen = 0' 'while $seen != 0xff' continue \
        'set $seen = $seen | ($pc == &work ? 1 : 0x10) << self' end 'printf "seen %x\n", $seen' delete \
        'break work if self == 3' continue 'print self' finish delete \
        'watch counter if self == 2' continue 'set $before = counter' continue 'printf "added %d\n", counter - $before' 'backtrace 2' delete \
        'hbreak ask if self == 1' continue delete 'while *(int *) $pc != 0x73' stepi end 'set $call = $pc' \
        stepi 'printf "mode %d, cause %d, from the call %d\n", $priv, $scause, $sepc == $call' 'set $steps = 1' \
        'while $priv != 0 && $steps < 2000' stepi 'set $steps = $steps + 1' end \
        'if $pc != $call + 4 || self != 1' 'tbreak *($call + 4) if self == 1' continue end \
        'printf "steps %d, behind the call %d, parent %d\n", $steps > 100, $pc == $call + 4, $a0 == first' finish next next \
        'set var *stop = 1' detach
    end_debugged
    tr -d '\r' < "$work/out" >> "$work/said"
    said '^seen ff$' '^\$. = 3$' 'Value returned is' '^added 3$' '^#0 .*work \(' '^#1 .* in main \(' \
        '^mode 1, cause 8, from the call 1$' '^steps 1, behind the call 1, parent 1$' '^main \(\)' \
        '^exit status 0' '^counter: status 0' || ok=no
    for self in 0 1 2 3; do
        said "^process $self counted right$" || ok=no
    done
    result "$name" $((SECONDS - start)) $ok
}

# profiled NAME ARGUMENT...: the profile of a guest whose one hart computes shows what it computes, called by whom, above all else.
profiled() {
    local name=$1 start=$SECONDS ok=yes status=0 top= try
    shift
    # When the host stops for a while, all of that is charged to where the hart stood: such a profile is no judge.
    for try in 1 2 3; do
        timeout $limit "$hartvm" run --kernel "$kernel" --initrd "$work/initrd.gz" \
            --append 'console=ttyS0 quiet rdinit=/init-debug busy' --profile "$work/profile.svg,$work/profile.folded" \
            --symbols "$symbols" --symbols "$work/root/busy" "$@" < /dev/null > "$work/out" 2>&1 || status=$?
        [ $status = 0 ] || { ok=no; echo "exit status $status"; break; }
        top=$(awk '{ count = $NF; sub(/ [0-9]+$/, ""); if (count > most) { most = count; chain = $0 } } END { print chain }' "$work/profile.folded")
        [[ $top != 'user;'*';main;compute;collatz' ]] || break
    done
    [[ $top = 'user;'*';main;compute;collatz' ]] || { ok=no; echo "most time is said to be in: $top"; }
    # The kernel has its names, too.
    grep -q '^supervisor;.*start_kernel;' "$work/profile.folded" || { ok=no; echo "no start_kernel"; }
    grep -q 'data-name="collatz"' "$work/profile.svg" || { ok=no; echo "no collatz in the flame graph"; }
    result "$name" $((SECONDS - start)) $ok
}
