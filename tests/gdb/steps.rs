//! Single steps, compared with a run in which nobody looks.

use std::fmt::Write;
use std::sync::atomic::AtomicU32;

use frontend::Decoder;
use frontend::ir::Op;
use jit::{Engine, EngineKind, Exit, Hart as _, HartState};
use machine::hart::Hart;
use softmmu::{Mmu, Trap};

use crate::debugger::{ENGINES, Guest, in_order};
use crate::guests::{counter, spinner};
use crate::harness::{self, RAM};
use crate::remote::Remote;

const STEPS: usize = 1000;

/// Lets the engine go round its loop once: that is one block.
struct Once<'a> {
    hart: &'a mut Hart,
    left: std::cell::Cell<u32>,
}

impl jit::Hart for Once<'_> {
    fn state(&mut self) -> &mut HartState {
        self.hart.state()
    }

    fn mmu(&mut self) -> &mut Mmu {
        self.hart.mmu()
    }

    fn poll_word(&self) -> &AtomicU32 {
        self.hart.poll_word()
    }

    fn polled(&self) -> bool {
        self.left.replace(self.left.get().saturating_sub(1)) == 0
    }

    fn call(&mut self, op: &Op) -> Result<(), Trap> {
        self.hart.call(op)
    }
}

/// The program counters of the first instructions that a hart executes in blocks, from `start` on; traps are taken.
fn trace(engine: &mut Engine, hart: &mut Hart, count: usize) -> Vec<u64> {
    let mut pcs = Vec::new();
    while pcs.len() < count {
        let (from, before) = (hart.state().pc, hart.state().instret);
        let exit = engine.run(&mut Once { hart, left: 1.into() });
        let retired = hart.state().instret - before;
        // Inside a block one instruction follows the other, and all of them are four bytes long here.
        pcs.extend((0..retired).map(|index| from + 4 * index));
        if let Exit::Trap(_) = exit {
            let at = hart.state().pc;
            assert_eq!(at, from + 4 * retired);
            pcs.push(at);
            // Once more, by itself, to take the trap.
            hart.run_until(engine, |hart| hart.state().pc != at);
        }
    }
    pcs.truncate(count);
    pcs
}

/// The same of each hart of a machine that has the counter's program at the start of RAM.
fn expected(harts: usize) -> Vec<Vec<u64>> {
    let words = counter().words;
    let machine = harness::machine_of("rv64", harts, "gdb-trace", &words, EngineKind::Interp);
    (0..harts)
        .map(|id| {
            let mut hart = machine.hart(id).expect("the hart is there");
            let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            machine.memory().write(RAM, &code).unwrap();
            hart.state().pc = RAM;
            let model: machine::cpu_model::CpuModel = "rv64".parse().unwrap();
            let mut engine = hart.engine(Decoder::new(&model.isa()));
            trace(&mut engine, &mut hart, STEPS)
        })
        .collect()
}

#[test]
fn a_thousand_steps_across_traps_on_two_harts_go_where_a_free_run_goes() {
    let expected = expected(2);
    let handler = counter().address("handler");
    assert!(expected.iter().all(|pcs| pcs.iter().filter(|&&pc| pc == handler).count() > 50));
    for engine in ENGINES {
        let mut script = String::from("set scheduler-locking step\n");
        for hart in 1..=2 {
            // The reset ROM leads to the program.
            let _ = write!(
                script,
                "thread {hart}\nset $pc = {RAM:#x}\nset $n = 0\nwhile $n < {STEPS}\n  printf \"at {hart} %lx\\n\", $pc\n  \
                 stepi\n  set $n = $n + 1\nend\n"
            );
        }
        let output = Guest::waiting(&counter(), engine, &["--cpus", "2"]).gdb(&script);
        for (hart, expected) in expected.iter().enumerate() {
            let mark = format!("at {} ", hart + 1);
            let seen = output.lines().filter_map(|line| line.strip_prefix(&mark));
            let seen: Vec<u64> = seen.map(|pc| u64::from_str_radix(pc, 16).unwrap()).collect();
            assert_eq!(seen.len(), STEPS, "{output}");
            assert!(&seen == expected, "{engine}, hart {hart}: {seen:x?}\nnot {expected:x?}");
        }
    }
}

#[test]
fn harts_step_at_the_same_time_as_others_run() {
    for engine in ENGINES {
        let guest = Guest::waiting(&spinner(), engine, &["--cpus", "2"]);
        let mut remote = Remote::attach(&guest);
        let spin = spinner().address("spin");
        assert_eq!(remote.ask(&format!("Z0,{spin:x},4")), "OK");
        remote.ask("vCont;c");
        assert_eq!(remote.ask(&format!("z0,{spin:x},4")), "OK");
        remote.select(1);
        for _ in 0..100 {
            assert_eq!(remote.ask("vCont;s:p1.2;c:p1.-1"), "T05thread:p01.02;");
        }
        // Its loop has two instructions, of which the first is WFI.
        let woken = spinner().address("woken");
        assert!([woken, woken - 4].contains(&remote.pc()));
        let before = remote.pc();
        assert_eq!(remote.ask("vCont;s:p1.2"), "T05thread:p01.02;");
        assert_ne!(remote.pc(), before);
        // With only hart 1 named, hart 0 has not moved.
        remote.select(0);
        let state = (remote.pc(), remote.register(10));
        remote.ask("vCont;s:p1.2");
        remote.select(0);
        assert_eq!((remote.pc(), remote.register(10)), state);
    }
}

#[test]
fn scheduler_locking_and_the_states_of_harts_are_seen_in_gdb() {
    for engine in ENGINES {
        let mut gdb = Guest::start(&spinner(), engine, &["--cpus", "3"]);
        let output = gdb_after_a_while(&mut gdb);
        in_order(
            &output,
            &[
                "hart 0, M-mode)",
                "hart 1, M-mode, in WFI)",
                "hart 2, M-mode, in WFI)",
                "locked: moved 0, stepped 3",
            ],
        );
    }
}

fn gdb_after_a_while(guest: &mut Guest) -> String {
    guest.wait_until_it_spins(3);
    guest.gdb(
        "info threads\nthread 1\nset $before = $a0\nthread 2\nset scheduler-locking on\nset $pc = &sleep\n\
         set $n = 0\nstepi\nset $n = $n + ($pc == (long)&woken)\nstepi\nset $n = $n + ($pc == (long)&sleep)\n\
         stepi\nset $n = $n + ($pc == (long)&woken)\nthread 1\nprintf \"locked: moved %d, stepped %d\\n\", $a0 - $before, $n\n",
    )
}
