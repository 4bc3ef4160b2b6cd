//! Every register of the target description.

use crate::debugger::{ENGINES, Guest, in_order};
use crate::guests::spinner;
use crate::remote::Remote;

/// Name and number of each register.
fn registers(description: &str) -> Vec<(String, usize)> {
    let attribute = |line: &str, name: &str| {
        let rest = line.split_once(&format!("{name}=\""))?.1;
        Some(rest.split_once('"')?.0.to_string())
    };
    description
        .lines()
        .filter(|line| line.starts_with("<reg "))
        .map(|line| (attribute(line, "name").unwrap(), attribute(line, "regnum").unwrap().parse().unwrap()))
        .collect()
}

/// Bits 11 and 10 of a CSR's number.
fn is_read_only(number: usize) -> bool {
    (65..0x1041).contains(&number) && (number - 65) >> 10 == 3
}

/// Registers that count, or show what counts.
fn moves(name: &str) -> bool {
    ["cycle", "time", "instret", "mcycle", "minstret", "mip", "sip"].contains(&name)
}

#[test]
fn every_register_of_the_description_can_be_read_and_written() {
    for engine in ENGINES {
        let guest = Guest::waiting(&spinner(), engine, &["--cpus", "2"]);
        let mut remote = Remote::attach(&guest);
        remote.select(1);
        let registers = registers(&remote.description());
        for name in [
            "zero",
            "pc",
            "ft0",
            "fs11",
            "fcsr",
            "mstatus",
            "satp",
            "stimecmp",
            "pmpaddr15",
            "hpmcounter31",
            "priv",
        ] {
            assert!(registers.iter().any(|(other, _)| other == name), "no {name}");
        }
        assert!(registers.len() > 200, "{}", registers.len());
        for (name, number) in &registers {
            let value = remote.register(*number).unwrap_or_else(|| panic!("{name} cannot be read"));
            if is_read_only(*number) {
                assert!(!remote.set_register(*number, value), "{name} can be written");
                continue;
            }
            assert!(remote.set_register(*number, value), "{name} cannot be written");
            if !moves(name) {
                assert_eq!(remote.register(*number), Some(value), "{name}");
            }
        }
        // What keeps every value.
        let kept = ["mscratch", "sscratch", "mtval", "stval", "mcause", "scause", "stimecmp"];
        let wide = registers.iter().filter(|(name, number)| {
            (1..32).contains(number) || (33..65).contains(number) || kept.contains(&name.as_str())
        });
        for (index, (name, number)) in wide.clone().enumerate() {
            assert!(remote.set_register(*number, 0xfedc_ba98_7654_3210 + index as u64), "{name}");
        }
        for (index, (name, number)) in wide.clone().enumerate() {
            assert_eq!(remote.register(*number), Some(0xfedc_ba98_7654_3210 + index as u64), "{name}");
        }
        assert!(wide.count() > 63 + 6);
        // x0 stays 0, and fcsr is its parts.
        let number = |name: &str| registers.iter().find(|(other, _)| other == name).unwrap().1;
        assert!(remote.set_register(0, 5) && remote.register(0) == Some(0));
        assert!(remote.set_register(number("fcsr"), 0b010_10001));
        assert_eq!(remote.register(number("frm")), Some(0b010));
        assert_eq!(remote.register(number("fflags")), Some(0b10001));
        // The privilege mode, and no such mode.
        for (mode, legal) in [(0, true), (1, true), (2, false), (3, true), (4, false)] {
            assert_eq!(remote.set_register(number("priv"), mode), legal, "{mode}");
        }
        // The other hart has kept its own.
        remote.select(0);
        assert_ne!(remote.register(number("mscratch")), Some(0xfedc_ba98_7654_3210));
        assert_eq!(remote.register(number("mhartid")), Some(0));
        // All at once.
        let general = remote.ask("g");
        assert_eq!(general.len(), 33 * 16);
        let changed = format!("{}{}{}", &general[..16], "8877665544332211", &general[32..]);
        assert_eq!(remote.ask(&format!("G{changed}")), "OK");
        assert_eq!((remote.ask("g"), remote.register(1)), (changed, Some(0x1122_3344_5566_7788)));
    }
}

#[test]
fn gdb_knows_the_registers_by_name_and_loads_programs_for_lp64d() {
    let output = Guest::waiting(&spinner(), "interp", &[]).gdb(
        "set $ft3.double = 2.5\nprint $ft3.double\nset $fs0.float = 1.5\nprint $fs0.float\nset $sscratch = 0x123456789\n\
         print/x $sscratch\nprint $priv\ninfo registers mhartid misa\nset $mstatus = $mstatus | 0x1800\nprint/x ($mstatus >> 11) & 3\n\
         info registers csr\nset var *(long*)&variable = 77\nprint *(long*)&variable\nset $mhartid = 4\n",
    );
    in_order(
        &output,
        &[
            "= 2.5",
            "= 1.5",
            "0x123456789",
            "= 3",
            "mhartid",
            "misa",
            "= 0x3",
            "stvec",
            "= 77",
            "Could not write register",
        ],
    );
}
