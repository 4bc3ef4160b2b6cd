//! A machine that remembers what it was asked to do.

use softmmu::Trap;

use super::*;

pub(super) const RAM: u64 = 0x8000_0000;
pub(super) const RAM_SIZE: u64 = 0x2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fence {
    I(HartSet),
    Vma(HartSet, u64, u64, Option<u16>),
}

/// Hart 0 of four calls; it is started and the others are stopped.
pub(super) struct Fake {
    pub(super) harts: u64,
    pub(super) per_hart: PerHart,
    pub(super) timer: Option<u64>,
    pub(super) ipis: Vec<u64>,
    pub(super) ipi_pending: bool,
    pub(super) fences: Vec<Fence>,
    pub(super) status: [HartStatus; 4],
    pub(super) started: Vec<(u64, Resume)>,
    pub(super) ram: Vec<u8>,
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// How many bytes one console write takes.
    pub(super) console_room: Option<usize>,
    pub(super) console_broken: bool,
    /// Value written and running state of `cycle` and `instret`.
    pub(super) counters: [(Option<u64>, Option<bool>); 2],
    pub(super) features: [Option<u64>; 6],
}

impl Default for Fake {
    fn default() -> Self {
        use HartStatus::{Started, Stopped};
        Self {
            harts: 4,
            per_hart: PerHart::default(),
            timer: None,
            ipis: Vec::new(),
            ipi_pending: false,
            fences: Vec::new(),
            status: [Started, Stopped, Stopped, Stopped],
            started: Vec::new(),
            ram: vec![0; RAM_SIZE as usize],
            input: Vec::new(),
            output: Vec::new(),
            console_room: None,
            console_broken: false,
            counters: [(None, None); 2],
            features: [Some(0), None, None, None, Some(0), Some(0)],
        }
    }
}

impl Fake {
    pub(super) fn outcome(&mut self, eid: u64, fid: u64, arguments: &[u64]) -> Outcome {
        let mut registers = [0; 8];
        registers[..arguments.len()].copy_from_slice(arguments);
        registers[6] = fid;
        registers[7] = eid;
        ecall(self, registers)
    }

    /// The error and value of a call that returns.
    pub(super) fn call(&mut self, eid: u64, fid: u64, arguments: &[u64]) -> (i64, u64) {
        match self.outcome(eid, fid, arguments) {
            Outcome::Return { error, value } => (error, value),
            other => panic!("{other:?}"),
        }
    }

    fn slot(counter: HardwareCounter) -> usize {
        match counter {
            HardwareCounter::Cycle => 0,
            HardwareCounter::Instret => 1,
        }
    }
}

impl Platform for Fake {
    fn hart_id(&self) -> u64 {
        0
    }
    fn hart_count(&self) -> u64 {
        self.harts
    }
    fn machine_ids(&self) -> MachineIds {
        MachineIds { mvendorid: 0, marchid: 0x2a, mimpid: 0 }
    }
    fn per_hart(&mut self) -> &mut PerHart {
        &mut self.per_hart
    }
    fn set_timer(&mut self, deadline: u64) {
        self.timer = Some(deadline);
    }
    fn send_ipi(&mut self, hart: u64) {
        self.ipis.push(hart);
    }
    fn clear_ipi(&mut self) -> bool {
        std::mem::take(&mut self.ipi_pending)
    }
    fn remote_fence_i(&mut self, harts: HartSet) {
        self.fences.push(Fence::I(harts));
    }
    fn remote_sfence_vma(&mut self, harts: HartSet, start: u64, size: u64, asid: Option<u16>) {
        self.fences.push(Fence::Vma(harts, start, size, asid));
    }
    fn hart_status(&self, hart: u64) -> HartStatus {
        self.status[hart as usize]
    }
    fn start_hart(&mut self, hart: u64, at: Resume) -> bool {
        let stopped = self.status[hart as usize] == HartStatus::Stopped;
        if stopped {
            self.status[hart as usize] = HartStatus::StartPending;
            self.started.push((hart, at));
        }
        stopped
    }
    fn is_executable(&self, address: u64) -> bool {
        self.is_ram(address, 2)
    }
    fn is_ram(&self, address: u64, length: u64) -> bool {
        address >= RAM && address.checked_add(length).is_some_and(|end| end <= RAM + RAM_SIZE)
    }
    fn read_memory(&self, address: u64, bytes: &mut [u8]) -> bool {
        let valid = self.is_ram(address, bytes.len() as u64);
        if valid {
            let start = (address - RAM) as usize;
            bytes.copy_from_slice(&self.ram[start..start + bytes.len()]);
        }
        valid
    }
    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> bool {
        let valid = self.is_ram(address, bytes.len() as u64);
        if valid {
            let start = (address - RAM) as usize;
            self.ram[start..start + bytes.len()].copy_from_slice(bytes);
        }
        valid
    }
    fn load_virtual(&mut self, address: u64) -> Result<u64, Trap> {
        let mut bytes = [0; 8];
        if self.read_memory(address, &mut bytes) {
            Ok(u64::from_le_bytes(bytes))
        } else {
            Err(Trap { cause: softmmu::cause::LOAD_PAGE_FAULT, tval: address })
        }
    }
    fn console_write(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.console_broken {
            return None;
        }
        let count = bytes.len().min(self.console_room.unwrap_or(usize::MAX));
        self.output.extend_from_slice(&bytes[..count]);
        Some(count)
    }
    fn console_read(&mut self, bytes: &mut [u8]) -> usize {
        let count = bytes.len().min(self.input.len());
        for (byte, input) in bytes.iter_mut().zip(self.input.drain(..count)) {
            *byte = input;
        }
        count
    }
    fn set_counter_running(&mut self, counter: HardwareCounter, running: bool) {
        self.counters[Self::slot(counter)].1 = Some(running);
    }
    fn write_counter(&mut self, counter: HardwareCounter, value: u64) {
        self.counters[Self::slot(counter)].0 = Some(value);
    }
    fn feature(&self, feature: Feature) -> Option<u64> {
        self.features[feature as usize]
    }
    fn set_feature(&mut self, feature: Feature, value: u64) -> bool {
        let possible = value != 16;
        if possible {
            self.features[feature as usize] = Some(value);
        }
        possible
    }
}
