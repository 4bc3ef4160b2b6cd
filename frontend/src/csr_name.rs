//! The one list of control and status registers: names and numbers.
//!
//! Privileged ISA 1.13, "CSR Listing", and the unprivileged and debug registers it includes, as far as they
//! exist on RV64 (no upper halves).

/// Hands the list of CSRs to the macro `$with`: `single` rows are constant, number and name; `series` rows
/// are the constant of the first, its number, the name without the index, and the range of indices.
#[macro_export]
macro_rules! for_each_csr {
    ($with:path) => {
        $with! {
            single {
                // Unprivileged.
                FFLAGS        0x001 "fflags";
                FRM           0x002 "frm";
                FCSR          0x003 "fcsr";
                VSTART        0x008 "vstart";
                VXSAT         0x009 "vxsat";
                VXRM          0x00a "vxrm";
                VCSR          0x00f "vcsr";
                SSP           0x011 "ssp";
                SEED          0x015 "seed";
                JVT           0x017 "jvt";
                CYCLE         0xc00 "cycle";
                TIME          0xc01 "time";
                INSTRET       0xc02 "instret";
                VL            0xc20 "vl";
                VTYPE         0xc21 "vtype";
                VLENB         0xc22 "vlenb";
                // Supervisor.
                SSTATUS       0x100 "sstatus";
                SIE           0x104 "sie";
                STVEC         0x105 "stvec";
                SCOUNTEREN    0x106 "scounteren";
                SENVCFG       0x10a "senvcfg";
                SCOUNTINHIBIT 0x120 "scountinhibit";
                SSCRATCH      0x140 "sscratch";
                SEPC          0x141 "sepc";
                SCAUSE        0x142 "scause";
                STVAL         0x143 "stval";
                SIP           0x144 "sip";
                STIMECMP      0x14d "stimecmp";
                SCTRCTL       0x14e "sctrctl";
                SCTRSTATUS    0x14f "sctrstatus";
                SISELECT      0x150 "siselect";
                SIREG         0x151 "sireg";
                SIREG2        0x152 "sireg2";
                SIREG3        0x153 "sireg3";
                SIREG4        0x155 "sireg4";
                SIREG5        0x156 "sireg5";
                SIREG6        0x157 "sireg6";
                STOPEI        0x15c "stopei";
                SCTRDEPTH     0x15f "sctrdepth";
                SATP          0x180 "satp";
                SRMCFG        0x181 "srmcfg";
                SCONTEXT      0x5a8 "scontext";
                SCOUNTOVF     0xda0 "scountovf";
                STOPI         0xdb0 "stopi";
                // Hypervisor and virtual supervisor.
                VSSTATUS      0x200 "vsstatus";
                VSIE          0x204 "vsie";
                VSTVEC        0x205 "vstvec";
                VSSCRATCH     0x240 "vsscratch";
                VSEPC         0x241 "vsepc";
                VSCAUSE       0x242 "vscause";
                VSTVAL        0x243 "vstval";
                VSIP          0x244 "vsip";
                VSTIMECMP     0x24d "vstimecmp";
                VSCTRCTL      0x24e "vsctrctl";
                VSISELECT     0x250 "vsiselect";
                VSIREG        0x251 "vsireg";
                VSIREG2       0x252 "vsireg2";
                VSIREG3       0x253 "vsireg3";
                VSIREG4       0x255 "vsireg4";
                VSIREG5       0x256 "vsireg5";
                VSIREG6       0x257 "vsireg6";
                VSTOPEI       0x25c "vstopei";
                VSATP         0x280 "vsatp";
                HSTATUS       0x600 "hstatus";
                HEDELEG       0x602 "hedeleg";
                HIDELEG       0x603 "hideleg";
                HIE           0x604 "hie";
                HTIMEDELTA    0x605 "htimedelta";
                HCOUNTEREN    0x606 "hcounteren";
                HGEIE         0x607 "hgeie";
                HVIEN         0x608 "hvien";
                HVICTL        0x609 "hvictl";
                HENVCFG       0x60a "henvcfg";
                HTVAL         0x643 "htval";
                HIP           0x644 "hip";
                HVIP          0x645 "hvip";
                HVIPRIO1      0x646 "hviprio1";
                HVIPRIO2      0x647 "hviprio2";
                HTINST        0x64a "htinst";
                HGATP         0x680 "hgatp";
                HCONTEXT      0x6a8 "hcontext";
                HGEIP         0xe12 "hgeip";
                VSTOPI        0xeb0 "vstopi";
                // Machine.
                MSTATUS       0x300 "mstatus";
                MISA          0x301 "misa";
                MEDELEG       0x302 "medeleg";
                MIDELEG       0x303 "mideleg";
                MIE           0x304 "mie";
                MTVEC         0x305 "mtvec";
                MCOUNTEREN    0x306 "mcounteren";
                MVIEN         0x308 "mvien";
                MVIP          0x309 "mvip";
                MENVCFG       0x30a "menvcfg";
                MCOUNTINHIBIT 0x320 "mcountinhibit";
                MCYCLECFG     0x321 "mcyclecfg";
                MINSTRETCFG   0x322 "minstretcfg";
                MSCRATCH      0x340 "mscratch";
                MEPC          0x341 "mepc";
                MCAUSE        0x342 "mcause";
                MTVAL         0x343 "mtval";
                MIP           0x344 "mip";
                MTINST        0x34a "mtinst";
                MTVAL2        0x34b "mtval2";
                MCTRCTL       0x34e "mctrctl";
                MISELECT      0x350 "miselect";
                MIREG         0x351 "mireg";
                MIREG2        0x352 "mireg2";
                MIREG3        0x353 "mireg3";
                MIREG4        0x355 "mireg4";
                MIREG5        0x356 "mireg5";
                MIREG6        0x357 "mireg6";
                MTOPEI        0x35c "mtopei";
                MNSCRATCH     0x740 "mnscratch";
                MNEPC         0x741 "mnepc";
                MNCAUSE       0x742 "mncause";
                MNSTATUS      0x744 "mnstatus";
                MSECCFG       0x747 "mseccfg";
                MCYCLE        0xb00 "mcycle";
                MINSTRET      0xb02 "minstret";
                MVENDORID     0xf11 "mvendorid";
                MARCHID       0xf12 "marchid";
                MIMPID        0xf13 "mimpid";
                MHARTID       0xf14 "mhartid";
                MCONFIGPTR    0xf15 "mconfigptr";
                MTOPI         0xfb0 "mtopi";
                // Debug and trace.
                TSELECT       0x7a0 "tselect";
                TDATA1        0x7a1 "tdata1";
                TDATA2        0x7a2 "tdata2";
                TDATA3        0x7a3 "tdata3";
                TINFO         0x7a4 "tinfo";
                TCONTROL      0x7a5 "tcontrol";
                MCONTEXT      0x7a8 "mcontext";
                MSCONTEXT     0x7aa "mscontext";
                DCSR          0x7b0 "dcsr";
                DPC           0x7b1 "dpc";
                DSCRATCH0     0x7b2 "dscratch0";
                DSCRATCH1     0x7b3 "dscratch1";
            }
            series {
                HPMCOUNTER3   0xc03 "hpmcounter"  3..=31;
                SSTATEEN0     0x10c "sstateen"    0..=3;
                HSTATEEN0     0x60c "hstateen"    0..=3;
                MSTATEEN0     0x30c "mstateen"    0..=3;
                MHPMEVENT3    0x323 "mhpmevent"   3..=31;
                PMPCFG0       0x3a0 "pmpcfg"      0..=15;
                PMPADDR0      0x3b0 "pmpaddr"     0..=63;
                MHPMCOUNTER3  0xb03 "mhpmcounter" 3..=31;
            }
        }
    };
}

macro_rules! define_csrs {
    (single { $($constant:ident $number:literal $name:literal;)* }
     series { $($first:ident $start:literal $prefix:literal $indices:expr;)* }) => {
        /// The CSR numbers; of a numbered series the first.
        pub mod number {
            $(#[doc = concat!("`", $name, "`")] pub const $constant: u16 = $number;)*
            $(#[doc = concat!("The first of the series `", $prefix, "`.")] pub const $first: u16 = $start;)*
        }

        /// Name and number of each CSR that is not one of a series.
        const SINGLE: &[(&str, u16)] = &[$(($name, $number)),*];

        /// Name without index, number of the first, and indices of each series.
        const SERIES: &[(&str, u16, std::ops::RangeInclusive<u16>)] = &[$(($prefix, $start, $indices)),*];
    };
}
for_each_csr!(define_csrs);

/// The name of CSR `number`, if it is a standard one.
pub fn name(number: u16) -> Option<String> {
    if let Some((name, _)) = SINGLE.iter().find(|(_, n)| *n == number) {
        return Some((*name).to_string());
    }
    SERIES.iter().find_map(|(prefix, first, indices)| {
        let index = number.checked_sub(*first)? + indices.start();
        indices.contains(&index).then(|| format!("{prefix}{index}"))
    })
}

/// Every standard CSR: its number and name, in order of number.
pub fn all() -> impl Iterator<Item = (u16, String)> {
    (0..0x1000).filter_map(|number| Some((number, name(number)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_count_from_their_first_index() {
        assert_eq!(name(0xc03).as_deref(), Some("hpmcounter3"));
        assert_eq!(name(0xc1f).as_deref(), Some("hpmcounter31"));
        assert_eq!(name(0x33f).as_deref(), Some("mhpmevent31"));
        assert_eq!(name(0x3ef).as_deref(), Some("pmpaddr63"));
        assert_eq!(name(0x3f0), None);
        assert_eq!(name(number::MSTATUS).as_deref(), Some("mstatus"));
    }

    #[test]
    fn every_number_and_name_is_there_once() {
        let names: std::collections::HashSet<_> = all().map(|(_, name)| name).collect();
        let listed =
            SINGLE.len() + SERIES.iter().map(|(_, _, indices)| indices.clone().count()).sum::<usize>();
        assert_eq!(names.len(), listed);
        assert_eq!(all().count(), listed);
    }
}
