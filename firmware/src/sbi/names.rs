//! Names of calls, as the specification has them.

use sbi_spec::{base, dbcn, fwft, hsm, pmu, rfnc, spi, srst, susp, time};

/// An extension and its functions from number 0 on.
type Row = (usize, &'static str, &'static [&'static str]);

#[rustfmt::skip]
const EXTENSIONS: &[Row] = &[
    (base::EID_BASE, "base", &["get_spec_version", "get_impl_id", "get_impl_version", "probe_extension", "get_mvendorid",
        "get_marchid", "get_mimpid"]),
    (time::EID_TIME, "time", &["set_timer"]),
    (spi::EID_SPI, "ipi", &["send_ipi"]),
    (rfnc::EID_RFNC, "rfence", &["remote_fence_i", "remote_sfence_vma", "remote_sfence_vma_asid", "remote_hfence_gvma_vmid",
        "remote_hfence_gvma", "remote_hfence_vvma_asid", "remote_hfence_vvma"]),
    (hsm::EID_HSM, "hsm", &["hart_start", "hart_stop", "hart_get_status", "hart_suspend"]),
    (srst::EID_SRST, "srst", &["system_reset"]),
    (pmu::EID_PMU, "pmu", &["num_counters", "counter_get_info", "counter_config_matching", "counter_start", "counter_stop",
        "counter_fw_read", "counter_fw_read_hi", "snapshot_set_shmem", "event_get_info"]),
    (dbcn::EID_DBCN, "dbcn", &["console_write", "console_read", "console_write_byte"]),
    (susp::EID_SUSP, "susp", &["system_suspend"]),
    (fwft::EID_FWFT, "fwft", &["set", "get"]),
];

/// The legacy extensions from number 0 on; they have no functions.
const LEGACY: &[&str] = &[
    "set_timer",
    "console_putchar",
    "console_getchar",
    "clear_ipi",
    "send_ipi",
    "remote_fence_i",
    "remote_sfence_vma",
    "remote_sfence_vma_asid",
    "shutdown",
];

/// The name of a call, by the extension and function ids in a7 and a6.
pub fn call_name(eid: u64, fid: u64) -> String {
    // As in `ecall`.
    let (eid, fid) = (eid as u32, fid as u32);
    if let Some(name) = LEGACY.get(eid as usize) {
        return format!("legacy.{name}");
    }
    match EXTENSIONS.iter().find(|(id, ..)| *id == eid as usize) {
        Some((_, name, functions)) => match functions.get(fid as usize) {
            Some(function) => format!("{name}.{function}"),
            None => format!("{name}.{fid:#x}"),
        },
        None => format!("extension {eid:#x}, function {fid:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_that_answers_has_a_name() {
        for &(eid, ..) in EXTENSIONS {
            assert!(super::super::handler(eid as u32).is_some(), "{eid:#x}");
        }
        assert!((0..LEGACY.len()).all(|eid| super::super::handler(eid as u32).is_some()));
        assert!(super::super::handler(LEGACY.len() as u32).is_none());
    }

    #[test]
    fn calls_have_names_and_unknown_ones_their_numbers() {
        assert_eq!(call_name(0x4442_434e, 2), "dbcn.console_write_byte");
        assert_eq!(call_name(0xffff_ffff_0000_0010, 3), "base.probe_extension");
        assert_eq!(call_name(0x10, 99), "base.0x63");
        assert_eq!(call_name(1, 0), "legacy.console_putchar");
        assert_eq!(call_name(0xabcd, 1), "extension 0xabcd, function 0x1");
    }
}
