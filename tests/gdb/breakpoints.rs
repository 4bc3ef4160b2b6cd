//! Software and hardware breakpoints.

use crate::debugger::{ENGINES, Guest, in_order};
use crate::guests::{VARIABLE, counter};
use crate::harness::RAM;
use crate::remote::Remote;
use crate::support::LIMIT;

#[test]
fn a_function_is_reached_by_software_and_by_hardware_breakpoint() {
    for engine in ENGINES {
        let output = Guest::waiting(&counter(), engine, &[]).gdb(
            "info threads\nbreak *work\ncontinue\nbacktrace 1\nx/i $pc\nhbreak *handler\ncontinue\n\
             print $mcause\ncontinue\ndelete 1\ncontinue\ncontinue\nprint $s3\nignore 2 7\ncontinue\nprint $s3\n",
        );
        in_order(
            &output,
            &[
                "hart 0, M-mode",
                "Breakpoint 1, 0x",
                "in work ()",
                "#0",
                "<work>:",
                "Breakpoint 2, 0x",
                "in handler ()",
                "$1 = 11",
                "Breakpoint 1, 0x",
                "in work ()",
                "Breakpoint 2, 0x",
                "Breakpoint 2, 0x",
                "$2 = 2",
                "Breakpoint 2, 0x",
                "$3 = 10",
            ],
        );
    }
}

#[test]
fn every_round_meets_a_breakpoint_once_and_memory_shows_the_code() {
    for engine in ENGINES {
        let output = Guest::waiting(&counter(), engine, &["--cpus", "2"]).gdb(
            "break *increment if $mhartid == 1\nset $n = 0\nwhile $n < 20\n  continue\n  printf \"hart %d round %d count %d\\n\", \
             $mhartid, $s0, *(long*)$s1\n  set $n = $n + 1\nend\nx/i &increment\n",
        );
        for round in 1..=20 {
            let line = format!("hart 1 round {round} count {}", round - 1);
            assert!(output.contains(&line), "no `{line}`: {output}");
        }
        in_order(&output, &["<increment>:\tadd\tt1,t1,1"]);
    }
}

#[test]
fn breakpoints_come_and_go_in_code_that_is_hot() {
    for engine in ENGINES {
        let program = counter();
        let guest = Guest::start(&program, engine, &[]);
        let mut remote = Remote::attach(&guest);
        let (work, after) = (program.address("work"), program.address("after"));
        let run_for_a_while = |remote: &mut Remote| {
            remote.send("vCont;c");
            std::thread::sleep(std::time::Duration::from_millis(2));
            remote.send_raw(&[3]);
            assert!(remote.answer().starts_with("T02thread:p01.01;"));
        };
        // On a busy machine it may take many whiles until the hart has run at all.
        let start = std::time::Instant::now();
        while remote.u64(VARIABLE) < 10_000 {
            run_for_a_while(&mut remote);
            assert!(start.elapsed() < LIMIT, "the guest does not count");
        }
        for _ in 0..50 {
            run_for_a_while(&mut remote);
            for (address, kind, reason) in [(work, 0, "swbreak"), (after, 1, "hwbreak")] {
                assert_eq!(remote.ask(&format!("Z{kind},{address:x},2")), "OK");
                let stop = remote.ask("vCont;c");
                assert_eq!(stop, format!("T05thread:p01.01;{reason}:;"));
                assert_eq!(remote.pc(), address);
                // Without a step over it, the breakpoint is met at once again.
                assert_eq!(remote.ask("vCont;c"), stop);
                assert_eq!(remote.ask(&format!("z{kind},{address:x},2")), "OK");
            }
        }
        // Nothing of all that is left in the code.
        let code: Vec<u8> = program.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(remote.memory(RAM, code.len()).as_deref(), Some(&code[..]));
        assert!(remote.u64(VARIABLE) >= 10_000 + 50);
    }
}

#[test]
fn a_step_onto_a_breakpoint_and_a_range_around_it_stop_there() {
    for engine in ENGINES {
        let program = counter();
        let guest = Guest::waiting(&program, engine, &[]);
        let mut remote = Remote::attach(&guest);
        let (start, increment) = (program.address("loop"), program.address("increment"));
        let place = format!("Z0,{start:x},2");
        assert_eq!(remote.ask(&place), "OK");
        remote.ask("vCont;c");
        assert_eq!(remote.ask(&format!("z{}", &place[1..])), "OK");
        assert_eq!(remote.ask(&format!("Z0,{increment:x},2")), "OK");
        // The range covers the whole program.
        let stop = remote.ask(&format!("vCont;r{RAM:x},{:x}:p1.1;c", RAM + 0x1000));
        assert_eq!((stop.as_str(), remote.pc()), ("T05thread:p01.01;swbreak:;", increment));
        assert_eq!(remote.ask("vCont;s:p1.1"), "T05thread:p01.01;");
        assert_eq!(remote.pc(), increment + 4);
        // A range is left by its last instruction.
        let back = program.address("back");
        let stop = remote.ask(&format!("vCont;r{:x},{:x}:p1.1;c", program.address("work"), back + 0x1000));
        assert_eq!((stop.as_str(), remote.pc()), ("T05thread:p01.01;", back));
    }
}
