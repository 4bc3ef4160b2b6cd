//! `monitor` commands.

use std::convert::Infallible;
use std::fmt::Write;

use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd};
use jit::Hart as _;
use softmmu::walk::pte;

use super::registers;
use super::target::Guest;
use super::threads;
use crate::devices::sifive_test::PowerEvent;

const HELP: &str = "\
Commands about a hart, the one that gdb has read last unless HART says its number (`info threads` reads all of them):
  monitor registers [HART]      all registers that it has, by name
  monitor walk ADDR [HART]      how satp translates a virtual address, which may be a register, such as $pc
Commands about the machine:
  monitor phys ADDR [COUNT [WIDTH]]   read COUNT units of WIDTH bytes (1, 2, 4 or 8) of physical memory
  monitor phys ADDR = VALUE [WIDTH]   write one
  monitor devices               the physical address map
  monitor reset                 reset the machine, which then stops at its first instruction
  monitor help                  this list
Numbers are decimal, or hexadecimal after 0x.
";

/// Most units that `phys` shows.
const MOST_UNITS: u64 = 1024;

fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is no number: want decimal, or hexadecimal after 0x"))
}

fn width(text: Option<&str>) -> Result<u64, String> {
    match text.map_or(Ok(8), number)? {
        width @ (1 | 2 | 4 | 8) => Ok(width),
        other => Err(format!("a width of {other} bytes is not possible; want 1, 2, 4 or 8")),
    }
}

const NO_HART: &str = "the machine is off";

impl Guest {
    fn monitor(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [] | ["help"] => Ok(HELP.into()),
            ["registers"] => self.show_registers(self.selected),
            ["registers", hart] => self.show_registers(self.hart(hart)?),
            ["walk", va] => self.walk(va, self.selected),
            ["walk", va, hart] => self.walk(va, self.hart(hart)?),
            ["phys", pa, "=", value] => self.write_phys(number(pa)?, number(value)?, width(None)?),
            ["phys", pa, "=", value, size] => {
                self.write_phys(number(pa)?, number(value)?, width(Some(size))?)
            }
            ["phys", pa] => self.read_phys(number(pa)?, 1, width(None)?),
            ["phys", pa, count] => self.read_phys(number(pa)?, number(count)?, width(None)?),
            ["phys", pa, count, size] => self.read_phys(number(pa)?, number(count)?, width(Some(size))?),
            ["devices"] => Ok(self.devices()),
            ["reset"] => self.reset(),
            _ => Err(format!(
                "`{}` is no command, or has other arguments; see `monitor help`",
                words.join(" ")
            )),
        }
    }

    /// A hart by its number.
    fn hart(&self, text: &str) -> Result<usize, String> {
        let harts = self.control().harts();
        match number(text)? {
            id if id < harts as u64 => Ok(id as usize),
            id => Err(format!("there is no hart {id}; the last one is {}", harts - 1)),
        }
    }

    fn show_registers(&self, id: usize) -> Result<String, String> {
        let show = move |hart: &mut crate::hart::Hart, _: &mut jit::Engine| {
            let mut text = format!("{}\npc {:#018x}\n", threads::describe(id, hart), hart.state().pc);
            let mut row = |values: Vec<(String, u64)>| {
                for line in values.chunks(3) {
                    let cells: Vec<_> =
                        line.iter().map(|(name, value)| format!("{name:<14} {value:#018x}")).collect();
                    let _ = writeln!(text, "{}", cells.join("   "));
                }
            };
            row(registers::named_general(hart));
            let csrs = registers::csrs(hart);
            row(csrs
                .into_iter()
                .filter_map(|(number, name)| Some((name, hart.csr_for_debugger(number)?)))
                // There are 87 for events that nothing counts.
                .filter(|(name, value)| *value != 0 || !name.contains("hpm"))
                .collect());
            text
        };
        self.control().ask(id, show).ok_or_else(|| NO_HART.into())
    }

    fn walk(&self, va: &str, id: usize) -> Result<String, String> {
        let name = va.trim_start_matches('$').to_string();
        let register =
            move |hart: &mut crate::hart::Hart, _: &mut jit::Engine| registers::by_name(hart, &name);
        let va = match number(va) {
            Ok(va) => va,
            Err(error) => {
                self.control().ask(id, register).ok_or(NO_HART)?.ok_or(error + ", or a register")?
            }
        };
        let show = move |hart: &mut crate::hart::Hart, _: &mut jit::Engine| {
            let mut text = String::new();
            let (mode, leaf) = hart.walk(va, |pa, entry| {
                const FLAGS: [(u64, char); 8] = [
                    (pte::V, 'V'),
                    (pte::R, 'R'),
                    (pte::W, 'W'),
                    (pte::X, 'X'),
                    (pte::U, 'U'),
                    (pte::G, 'G'),
                    (pte::A, 'A'),
                    (pte::D, 'D'),
                ];
                let flags: String =
                    FLAGS.iter().map(|&(bit, letter)| if entry & bit != 0 { letter } else { '-' }).collect();
                let to = pte::address(entry);
                let _ = writeln!(text, "  entry at {pa:#014x}: {entry:#018x}  {flags}  {to:#014x}");
            });
            let result = match leaf {
                _ if mode == softmmu::SatpMode::Bare => format!("{va:#x} is physical: satp.MODE is Bare"),
                Some(leaf) => {
                    format!(
                        "{va:#x} is at physical {:#x}, page of {} KiB",
                        leaf.translate(va),
                        (leaf.offset_mask() + 1) >> 10
                    )
                }
                None => format!("{va:#x} is not mapped"),
            };
            format!("{}, {mode:?}\n{text}{result}\n", threads::describe(id, hart))
        };
        self.control().ask(id, show).ok_or_else(|| NO_HART.into())
    }

    fn read_phys(&self, pa: u64, count: u64, width: u64) -> Result<String, String> {
        if count > MOST_UNITS {
            return Err(format!("{count} units are too many at once; want {MOST_UNITS} at most"));
        }
        let read = move |hart: &mut crate::hart::Hart, _: &mut jit::Engine| {
            let mut text = String::new();
            for index in 0..count {
                let at = pa.wrapping_add(index * width);
                let mut bytes = [0; 8];
                if hart.read_physical(at, &mut bytes[..width as usize]).is_err() {
                    return Err(format!("{text}nothing can be read at physical {at:#x} by {width} bytes"));
                }
                let digits = 2 + 2 * width as usize;
                let _ = writeln!(text, "{at:#x}: {:#0digits$x}", u64::from_le_bytes(bytes));
            }
            Ok(text)
        };
        self.control().ask(self.selected, read).ok_or(NO_HART)?
    }

    fn write_phys(&mut self, pa: u64, value: u64, width: u64) -> Result<String, String> {
        if width < 8 && value >> (8 * width) != 0 {
            return Err(format!("{value:#x} does not fit into {width} bytes"));
        }
        self.memory_written = true;
        let write = move |hart: &mut crate::hart::Hart, _: &mut jit::Engine| {
            hart.write_physical(pa, &value.to_le_bytes()[..width as usize])
        };
        match self.control().ask(self.selected, write).ok_or(NO_HART)? {
            Ok(()) => Ok(String::new()),
            Err(softmmu::AccessFault) => {
                Err(format!("nothing can be written at physical {pa:#x} by {width} bytes"))
            }
        }
    }

    fn devices(&self) -> String {
        let ram = self.system.memory.ram();
        let mut text = format!("{:#012x} - {:#012x}  RAM\n", ram.start, ram.end - 1);
        for (place, device) in self.system.devices().devices() {
            let irq = place.irq.map_or(String::new(), |irq| format!(", interrupt {irq}"));
            let last = place.base + place.size - 1;
            let _ = writeln!(text, "{:#012x} - {last:#012x}  {}{irq}", place.base, device.name());
        }
        text
    }

    fn reset(&mut self) -> Result<String, String> {
        let arrivals = self.control().arrivals();
        self.system.power.request(PowerEvent::Reset);
        if self.control().wait_for_restart(arrivals) && self.hold_new() {
            Ok("the machine is at its first instruction; `maintenance flush register-cache` makes gdb look again\n".into())
        } else {
            Err("the machine does not start again (--no-reboot?)".into())
        }
    }
}

impl MonitorCmd for Guest {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        let text = match self.monitor(&String::from_utf8_lossy(command)) {
            Ok(text) => text,
            Err(error) => format!("error: {error}\n"),
        };
        let _ = out.write_str(&text);
        Ok(())
    }
}
