//! The built-in SBI: what answers a supervisor's `ecall` when no firmware file is given.
//!
//! It implements the RISC-V Supervisor Binary Interface 3.0 with the extensions BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN,
//! PMU, SUSP and FWFT, one file each, and the legacy calls. It runs on the calling hart's thread and asks the machine for
//! everything through [`Platform`]. What changes the calling hart itself (stopping, suspending, resetting) is not done
//! here but returned as an [`Outcome`], because only the hart's run loop can do it.

mod base;
mod dbcn;
mod fwft;
mod harts;
mod hsm;
mod ipi;
mod legacy;
mod names;
mod pmu;
mod rfence;
mod srst;
mod susp;
mod time;

#[cfg(test)]
mod fake;

pub use fwft::Feature;
pub use harts::HartSet;
pub use names::call_name;
pub use pmu::{COUNTERS, FirmwareEvent, HardwareCounter, Pmu};

use softmmu::Trap;

/// The `sbiret.error` codes (SBI 3.0, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum SbiError {
    /// Failed for an unspecified reason.
    Failed = -1,
    /// Unknown extension or function, or not available here.
    NotSupported = -2,
    /// A parameter is not valid.
    InvalidParam = -3,
    /// Not allowed.
    Denied = -4,
    /// An address is not valid.
    InvalidAddress = -5,
    /// The hart is already started.
    AlreadyAvailable = -6,
    /// The counter is already started.
    AlreadyStarted = -7,
    /// The counter is already stopped.
    AlreadyStopped = -8,
    /// Shared memory has not been set up.
    NoShmem = -9,
    /// Denied because it has been locked.
    DeniedLocked = -14,
}

/// What has to happen after an `ecall`. Unless stated otherwise the hart goes on after the `ecall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Write `error` to a0 and `value` to a1; all other registers are preserved.
    Return {
        /// Zero or an [`SbiError`].
        error: i64,
        /// `sbiret.value`.
        value: u64,
    },
    /// Write a0 only: a legacy call, which preserves a1.
    Legacy {
        /// The result.
        a0: i64,
    },
    /// A legacy call could not read the caller's memory: take this trap at the `ecall`, in the supervisor.
    Fault(Trap),
    /// Move the calling hart to STOPPED. It runs again when another hart starts it.
    HartStop,
    /// Suspend the calling hart until an interrupt enabled in `sie` is pending (whatever `sstatus.SIE`). With `None` it
    /// then returns success (a0 = a1 = 0), all its state preserved; else it resumes as after a start.
    HartSuspend(Option<Resume>),
    /// Suspend the machine until a wake-up interrupt, then resume the calling hart. All others are stopped.
    SystemSuspend(Resume),
    /// Shut down or reboot the machine; the call does not return.
    Reset {
        /// What to do.
        kind: ResetKind,
        /// Whether the reason given is a system failure.
        failure: bool,
    },
}

/// Where and how a hart starts in S-mode: at `address` with satp = 0, sstatus.SIE = 0, a0 = its hart id, a1 = `opaque`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Physical address of the first instruction.
    pub address: u64,
    /// The value for a1.
    pub opaque: u64,
}

/// The reset types of SRST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetKind {
    /// Power off.
    Shutdown,
    /// Power cycle everything.
    ColdReboot,
    /// Power cycle the harts.
    WarmReboot,
}

/// The HSM states of a hart (SBI 3.0, table 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum HartStatus {
    /// Executing.
    Started = 0,
    /// Not executing in S-mode or below.
    Stopped = 1,
    /// Asked to start, not yet there.
    StartPending = 2,
    /// Asked to stop, not yet there.
    StopPending = 3,
    /// Suspended.
    Suspended = 4,
    /// Asked to suspend, not yet there.
    SuspendPending = 5,
    /// Woken up, not yet there.
    ResumePending = 6,
}

/// The identification CSRs as they are reported to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineIds {
    /// `mvendorid`.
    pub mvendorid: u64,
    /// `marchid`.
    pub marchid: u64,
    /// `mimpid`.
    pub mimpid: u64,
}

/// What the SBI keeps for each hart: plain data. A hart reset sets it to the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerHart {
    /// Performance counters.
    pub pmu: Pmu,
    /// Firmware features that are locked, as bits numbered by feature id.
    pub locked_features: u32,
}

/// The machine as the calling hart sees it. Harts are numbered from 0 without gaps.
pub trait Platform {
    /// The calling hart.
    fn hart_id(&self) -> u64;
    /// How many harts there are.
    fn hart_count(&self) -> u64;
    /// The identification CSRs.
    fn machine_ids(&self) -> MachineIds;
    /// What the SBI keeps for the calling hart.
    fn per_hart(&mut self) -> &mut PerHart;

    /// Sets the calling hart's timer to `deadline` (in ticks of the `time` CSR) and makes STIP pending exactly when it has
    /// been reached: a past deadline leaves STIP pending, a future one clears it.
    fn set_timer(&mut self, deadline: u64);
    /// Makes SSIP pending on a hart, which may be the calling one.
    fn send_ipi(&mut self, hart: u64);
    /// Clears SSIP on the calling hart; returns whether it was pending.
    fn clear_ipi(&mut self) -> bool;
    /// Executes `fence.i` on these harts; returns when all that are running have done so. A stopped hart counts as done.
    fn remote_fence_i(&mut self, harts: HartSet);
    /// Executes `sfence.vma` on these harts over `size` bytes of virtual addresses from `start`, which need not be aligned
    /// and do not wrap; `size` `u64::MAX` means everything. `None` means all ASIDs. Returns when done, as `remote_fence_i`.
    fn remote_sfence_vma(&mut self, harts: HartSet, start: u64, size: u64, asid: Option<u16>);

    /// The HSM state of a hart.
    fn hart_status(&self, hart: u64) -> HartStatus;
    /// Atomically moves a hart from STOPPED to START_PENDING; returns false, changing nothing, if it was not STOPPED.
    fn start_hart(&mut self, hart: u64, at: Resume) -> bool;

    /// Whether S-mode can fetch instructions from this physical address.
    fn is_executable(&self, address: u64) -> bool;
    /// Whether all of these bytes of physical address space are RAM.
    fn is_ram(&self, address: u64, length: u64) -> bool;
    /// Reads RAM at a physical address; returns false if any of it is not RAM.
    fn read_memory(&self, address: u64, bytes: &mut [u8]) -> bool;
    /// Writes RAM at a physical address (with all the care for translated code); returns false if any of it is not RAM.
    fn write_memory(&mut self, address: u64, bytes: &[u8]) -> bool;
    /// Reads eight bytes at a virtual address as the calling S-mode (or U-mode) would.
    ///
    /// # Errors
    /// The trap that the load would take.
    fn load_virtual(&mut self, address: u64) -> Result<u64, Trap>;

    /// Writes at least one of `bytes` (which are not empty) to the console, waiting for room if need be; returns how many,
    /// or `None` if the console is broken.
    fn console_write(&mut self, bytes: &[u8]) -> Option<usize>;
    /// Reads what the console has, without waiting; returns how many bytes.
    fn console_read(&mut self, bytes: &mut [u8]) -> usize;

    /// Clears or sets the counter's bit in the calling hart's `mcountinhibit`.
    fn set_counter_running(&mut self, counter: HardwareCounter, running: bool);
    /// Writes the calling hart's `mcycle` or `minstret`.
    fn write_counter(&mut self, counter: HardwareCounter, value: u64);

    /// The value of a firmware feature on the calling hart, or `None` if the hart does not have what it controls.
    fn feature(&self, feature: Feature) -> Option<u64>;
    /// Sets a firmware feature that the hart has; returns false, changing nothing, if the value is not possible.
    fn set_feature(&mut self, feature: Feature, value: u64) -> bool;
}

type Answer = Result<Outcome, SbiError>;

/// The arguments a0 to a5.
type Arguments = [u64; 6];

/// Answers the calls of one extension; the number is the function id.
type Handler = fn(&mut dyn Platform, u32, Arguments) -> Answer;

/// Answers an `ecall` from S-mode. `registers` are a0 to a7; a7 is the extension id and a6 the function id.
pub fn ecall(platform: &mut dyn Platform, registers: [u64; 8]) -> Outcome {
    let [a0, a1, a2, a3, a4, a5, fid, eid] = registers;
    // Both ids are 32 bits wide; what is above them is ignored, so that a sign-extended id is the same id.
    let answer = match handler(eid as u32) {
        Some(handler) => handler(platform, fid as u32, [a0, a1, a2, a3, a4, a5]),
        None => Err(SbiError::NotSupported),
    };
    answer.unwrap_or_else(|error| Outcome::Return { error: error as i64, value: 0 })
}

/// The one list of extensions: what `ecall` dispatches to, and what BASE says is there.
fn handler(eid: u32) -> Option<Handler> {
    match eid as usize {
        sbi_spec::base::EID_BASE => Some(base::call),
        sbi_spec::time::EID_TIME => Some(time::call),
        sbi_spec::spi::EID_SPI => Some(ipi::call),
        sbi_spec::rfnc::EID_RFNC => Some(rfence::call),
        sbi_spec::hsm::EID_HSM => Some(hsm::call),
        sbi_spec::srst::EID_SRST => Some(srst::call),
        sbi_spec::dbcn::EID_DBCN => Some(dbcn::call),
        sbi_spec::pmu::EID_PMU => Some(pmu::call),
        sbi_spec::susp::EID_SUSP => Some(susp::call),
        sbi_spec::fwft::EID_FWFT => Some(fwft::call),
        _ => legacy::handler(eid),
    }
}

fn success(value: u64) -> Answer {
    Ok(Outcome::Return { error: 0, value })
}

/// Checks an address at which a hart is to start in S-mode.
fn resume_at(platform: &dyn Platform, address: u64, opaque: u64) -> Result<Resume, SbiError> {
    if address & 1 != 0 || !platform.is_executable(address) {
        return Err(SbiError::InvalidAddress);
    }
    Ok(Resume { address, opaque })
}

/// Checks a physical range of shared memory given as two registers (SBI 3.0, 3.2); returns its address.
fn shared_memory(platform: &dyn Platform, low: u64, high: u64, length: u64) -> Option<u64> {
    (high == 0 && platform.is_ram(low, length)).then_some(low)
}

#[cfg(test)]
mod tests {
    use super::fake::Fake;
    use super::*;

    #[test]
    fn unknown_extensions_are_not_supported() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(0x0A00_0000, 0, &[]), (-2, 0));
        assert_eq!(fake.call(sbi_spec::sta::EID_STA as u64, 0, &[]), (-2, 0));
    }

    #[test]
    fn unknown_functions_are_not_supported_in_every_extension() {
        for eid in [
            0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D, 0x53525354, 0x4442434E, 0x504D55, 0x53555350,
            0x46574654,
        ] {
            assert_eq!(Fake::default().call(eid, 99, &[]), (-2, 0), "{eid:#x}");
        }
    }

    #[test]
    fn ids_are_32_bits_wide() {
        let mut fake = Fake::default();
        assert_eq!(fake.call(0xffff_ffff_0000_0010, 0xffff_ffff_0000_0000, &[]), (0, 0x0300_0000));
    }

    #[test]
    fn error_codes_are_those_of_the_specification() {
        assert_eq!(SbiError::Failed as i64, -1);
        assert_eq!(SbiError::AlreadyAvailable as i64, -6);
        assert_eq!(SbiError::NoShmem as i64, -9);
        assert_eq!(SbiError::DeniedLocked as i64, -14);
    }
}
