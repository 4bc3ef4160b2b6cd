//! A small virtio driver in guest code, and drivers that lie to the device.

use frontend::Opcode;
use frontend::encode::Operands;

use crate::guest::{Program, RAM, S0, S1};
use crate::support::{Dir, bare, run};

/// The transport of the first device, and of the one after it: with one disk, the disk and the random numbers.
pub(crate) const FIRST: u64 = 0x1000_8000;
const SECOND: u64 = 0x1000_7000;

const STATUS: u64 = 0x70;
const QUEUE_NOTIFY: u64 = 0x50;

/// Descriptor flags.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Request types and results of a block device (section 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const OK: i64 = 0;

/// Holds the driver's index in the available ring.
const INDEX: u8 = 19;
const A: u8 = 28;
const B: u8 = 29;

/// A queue and what its requests need, at `base`.
#[derive(Clone, Copy)]
pub(crate) struct Queue {
    desc: u64,
    avail: u64,
    used: u64,
    num: u32,
    /// The base address of all of it.
    base: u64,
}

pub(crate) const QUEUE: Queue = queue(RAM + 0x1_0000);
const SECOND_QUEUE: Queue = queue(RAM + 0x2_0000);

const fn queue(base: u64) -> Queue {
    Queue { desc: base, avail: base + 0x1000, used: base + 0x2000, num: 8, base }
}

impl Queue {
    /// The header of read and write requests, whose sector is at offset 8.
    pub(crate) fn header(self) -> u64 {
        self.base + 0x3000
    }

    fn flush_header(self) -> u64 {
        self.base + 0x3040
    }

    /// The status of the last flush.
    pub(crate) fn flush_result(self) -> u64 {
        self.result() + 1
    }

    /// Where the results of the request and of the flush arrive.
    pub(crate) fn result(self) -> u64 {
        self.base + 0x3080
    }

    /// A sector of data.
    pub(crate) fn data(self) -> u64 {
        self.base + 0x4000
    }
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> Vec<u8> {
    let mut bytes = address.to_le_bytes().to_vec();
    bytes.extend(length.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(next.to_le_bytes());
    bytes
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = u64::from(kind).to_le_bytes().to_vec();
    bytes.extend(sector.to_le_bytes());
    bytes
}

/// Adds a queue of good requests to a program: chain 0 reads or writes a sector, chain 3 flushes.
fn add_queue(program: &mut Program, queue: Queue, kind: u32) {
    let data_flags = if kind == IN { NEXT | WRITE } else { NEXT };
    let table = [
        descriptor(queue.header(), 16, NEXT, 1),
        descriptor(queue.data(), 512, data_flags, 2),
        descriptor(queue.result(), 1, WRITE, 0),
        descriptor(queue.flush_header(), 16, NEXT, 4),
        descriptor(queue.flush_result(), 1, WRITE, 0),
        descriptor(queue.data(), 16, WRITE, 0),
    ];
    program.data(queue.desc, &table.concat());
    program.data(queue.header(), &header(kind, 0)).data(queue.flush_header(), &header(FLUSH, 0));
    program.data(queue.result(), &[0xff, 0xff]).data(queue.data() + 511, &[0]);
}

/// Resets the device and sets up its first queue.
fn set_up(program: &mut Program, device: u64, queue: Queue, features: u32) {
    program.poke(device + STATUS, 0);
    let top = program.here();
    program.load(Opcode::Lw, A, device + STATUS).branch(Opcode::Bne, A, 0, top);
    // ACKNOWLEDGE and DRIVER; VERSION_1 and `features`; FEATURES_OK.
    program.poke(device + STATUS, 3);
    program
        .poke(device + 0x24, 1)
        .poke(device + 0x20, 1)
        .poke(device + 0x24, 0)
        .poke(device + 0x20, features);
    program.poke(device + STATUS, 11);
    program.poke(device + 0x30, 0).poke(device + 0x38, queue.num);
    for (register, address) in [(0x80, queue.desc), (0x90, queue.avail), (0xa0, queue.used)] {
        program.poke(device + register, address as u32).poke(device + register + 4, (address >> 32) as u32);
    }
    program.poke(device + 0x44, 1).poke(device + STATUS, 15);
    program.addi(INDEX, 0, 0);
}

/// Has the device carry out the chain at `head`, and waits for that.
fn submit(program: &mut Program, device: u64, queue: Queue, head: u16) {
    program.insn(Opcode::Andi, Operands { rd: B, rs1: INDEX, imm: 7, ..Operands::default() });
    program.insn(Opcode::Slli, Operands { rd: B, rs1: B, imm: 1, ..Operands::default() }).li(A, queue.avail);
    program.insn(Opcode::Add, Operands { rd: A, rs1: A, rs2: B, ..Operands::default() }).li(B, head.into());
    program.insn(Opcode::Sh, Operands { rs1: A, rs2: B, imm: 4, ..Operands::default() });
    program.addi(INDEX, INDEX, 1);
    for op in [Opcode::Slli, Opcode::Srli] {
        program.insn(op, Operands { rd: INDEX, rs1: INDEX, imm: 48, ..Operands::default() });
    }
    let fence = Operands { imm: 0xff, ..Operands::default() };
    program.insn(Opcode::Fence, fence);
    program
        .store(Opcode::Sh, INDEX, queue.avail + 2)
        .insn(Opcode::Fence, fence)
        .poke(device + QUEUE_NOTIFY, 0);
    let top = program.here();
    program.load(Opcode::Lhu, B, queue.used + 2).branch(Opcode::Bne, B, INDEX, top);
    program.insn(Opcode::Fence, fence);
}

/// Begins a program that writes to the first disk; the queue is [`QUEUE`].
pub(crate) fn disk_writer() -> Program {
    const FEATURE_FLUSH: u32 = 1 << 9;
    let mut program = Program::new();
    add_queue(&mut program, QUEUE, OUT);
    set_up(&mut program, FIRST, QUEUE, FEATURE_FLUSH);
    program
}

/// Writes the sector that the header names.
pub(crate) fn write_sector(program: &mut Program) {
    submit(program, FIRST, QUEUE, 0);
}

/// Flushes what has been written.
pub(crate) fn flush(program: &mut Program) {
    submit(program, FIRST, QUEUE, 3);
}

/// What a lying driver does.
struct Lie {
    what: &'static str,
    queue: Queue,
    table: Vec<Vec<u8>>,
    /// The available ring: flags, index, entries.
    ring: Vec<u16>,
}

/// The lies. Requests are writes to the disk as far as they make sense.
fn lies() -> Vec<Lie> {
    let good = || {
        vec![
            descriptor(QUEUE.header(), 16, NEXT, 1),
            descriptor(QUEUE.data(), 512, NEXT, 2),
            descriptor(QUEUE.result(), 1, WRITE, 0),
        ]
    };
    let lie = |what, queue, table, ring: &[u16]| Lie { what, queue, table, ring: ring.to_vec() };
    let one: &[u16] = &[0, 1, 0];
    let mut lies = Vec::new();
    for address in [0, 0x10_0000, 0x7fff_ff00, RAM + (64 << 20) - 1, 1 << 46, u64::MAX - 511] {
        for index in 0..3 {
            let mut table = good();
            table[index][..8].copy_from_slice(&address.to_le_bytes());
            // Only one byte that fits at the end of RAM is no lie.
            if index < 2 || address != RAM + (64 << 20) - 1 {
                lies.push(lie("wild address", QUEUE, table, one));
            }
        }
    }
    for index in 0..3 {
        for length in [0, u32::MAX, 0x8000_0000] {
            let mut table = good();
            table[index][8..12].copy_from_slice(&length.to_le_bytes());
            lies.push(lie("wrong length", QUEUE, table, one));
        }
    }
    let to_self = |flags| vec![descriptor(QUEUE.data(), 512, flags, 0)];
    lies.push(lie("a descriptor that follows itself", QUEUE, to_self(NEXT), one));
    lies.push(lie("a writable descriptor that follows itself", QUEUE, to_self(NEXT | WRITE), one));
    let ring = (0..8).map(|n| descriptor(QUEUE.data(), u32::MAX, NEXT | WRITE, (n + 1) % 8)).collect();
    lies.push(lie("a loop of 4 GiB descriptors", QUEUE, ring, one));
    lies.push(lie(
        "a next descriptor outside of the table",
        QUEUE,
        vec![descriptor(QUEUE.data(), 16, NEXT, 9999)],
        one,
    ));
    lies.push(lie("a head outside of the table", QUEUE, good(), &[0, 1, 8]));
    lies.push(lie("a head far outside of the table", QUEUE, good(), &[0, 1, 0xffff]));
    lies.push(lie("more requests than the ring has", QUEUE, good(), &[0, 9, 0]));
    lies.push(lie("an index that runs away", QUEUE, good(), &[0, 0x8000, 0]));
    for (address, length) in
        [(QUEUE.desc, 16), (u64::MAX - 15, 16), (QUEUE.desc, 7), (QUEUE.desc, u32::MAX - 15), (QUEUE.desc, 0)]
    {
        let table = vec![descriptor(address, length, INDIRECT, 0)];
        lies.push(lie("a bad indirect table", QUEUE, table, one));
    }
    for wild in [0, 0x1000, 0x10_0000, RAM + (64 << 20) - 16, 0xffff_ffff_ffff_f000] {
        lies.push(lie("a wild descriptor table", Queue { desc: wild, ..QUEUE }, good(), one));
        lies.push(lie("a wild available ring", Queue { avail: wild, ..QUEUE }, good(), one));
        lies.push(lie("a wild used ring", Queue { used: wild, ..QUEUE }, good(), one));
    }
    for num in [0, 3, 0x8000, 0x1_0000, u32::MAX] {
        lies.push(lie("a wrong queue size", Queue { num, ..QUEUE }, good(), one));
    }
    lies
}

/// Tells a device a lie, waits a while, and then does business as usual: the exit code is 42 if that works.
fn liar(lie: &Lie, device: u64) -> Vec<u8> {
    let mut program = Program::new();
    program.data(QUEUE.desc, &lie.table.concat());
    let ring: Vec<u8> = lie.ring.iter().flat_map(|half| half.to_le_bytes()).collect();
    program.data(QUEUE.avail, &ring).data(QUEUE.header(), &header(OUT, 3));
    add_queue(&mut program, SECOND_QUEUE, IN);

    set_up(&mut program, device, lie.queue, 0);
    program
        .poke(device + QUEUE_NOTIFY, 0)
        .poke(device + QUEUE_NOTIFY, 1)
        .poke(device + QUEUE_NOTIFY, u32::MAX);
    program.li(S0, 500);
    let top = program.here();
    program.load(Opcode::Lw, A, device + STATUS).addi(S0, S0, -1).branch(Opcode::Bne, S0, 0, top);

    set_up(&mut program, device, SECOND_QUEUE, 0);
    if device == FIRST {
        submit(&mut program, device, SECOND_QUEUE, 0);
        program.load(Opcode::Lb, S0, SECOND_QUEUE.result()).addi(S1, 0, OK);
        let good = program.branch_forward(Opcode::Beq, S0, S1);
        program.exit(43).land(good);
    } else {
        submit(&mut program, device, SECOND_QUEUE, 5);
    }
    program.exit(42).binary()
}

#[test]
fn devices_survive_drivers_that_lie() {
    let dir = Dir::new();
    for (number, lie) in lies().iter().enumerate() {
        for device in [FIRST, SECOND] {
            let program = dir.file("program", &liar(lie, device));
            let disk = dir.zeros("disk", 1 << 20);
            let outcome = run(bare(&program).arg("--disk").arg(&disk));
            let what = format!("{} (number {number}, device {device:#x})", lie.what);
            assert_eq!(outcome.code(), 42, "{what}: {}", outcome.stderr);
            assert!(outcome.stderr.lines().count() < 20, "{what}: {}", outcome.stderr);
        }
    }
}

#[test]
fn registers_take_any_value() {
    let dir = Dir::new();
    let disk = dir.zeros("disk", 1 << 20);
    for value in [0, 1, 0x7f, 0x8000_0001, u32::MAX] {
        let mut program = Program::new();
        // A fault in an access of a width that is not supported is skipped.
        program.insn(Opcode::Auipc, Operands { rd: S0, ..Operands::default() }).addi(S0, S0, 16);
        program.insn(Opcode::Csrrw, Operands { rs1: S0, imm: 0x305, ..Operands::default() });
        let over = program.branch_forward(Opcode::Beq, 0, 0);
        const MEPC: i64 = 0x341;
        program.insn(Opcode::Csrrs, Operands { rd: A, imm: MEPC, ..Operands::default() }).addi(A, A, 4);
        program.insn(Opcode::Csrrw, Operands { rs1: A, imm: MEPC, ..Operands::default() });
        program.insn(Opcode::Mret, Operands::default()).land(over);
        program.li(S0, SECOND).li(S1, FIRST + 0x1000).li(B, value.into());
        let top = program.here();
        for (store, load) in [
            (Opcode::Sw, Opcode::Lw),
            (Opcode::Sb, Opcode::Lb),
            (Opcode::Sh, Opcode::Lh),
            (Opcode::Sd, Opcode::Ld),
        ] {
            program.insn(store, Operands { rs1: S0, rs2: B, ..Operands::default() });
            program.insn(load, Operands { rd: A, rs1: S0, ..Operands::default() });
        }
        program.addi(S0, S0, 4).branch(Opcode::Bltu, S0, S1, top).exit(42);
        let program = dir.file("program", &program.binary());
        for interface in [&[][..], &["--virtio-legacy"], &["--virtio-console"]] {
            let outcome = run(bare(&program).args(interface).arg("--disk").arg(&disk));
            assert_eq!(outcome.code(), 42, "{value:#x} {interface:?}: {}", outcome.stderr);
        }
    }
}
