//! CPU models: which extensions a hart has, named as QEMU names them.
//!
//! A choice is written `MODEL[,FEATURE[=on|off]]...`, for example `max,sv57=off,zfh=off`. Features are the names of
//! extensions, and `sv39`, `sv48` and `sv57` for the largest address translation mode. They are applied from left
//! to right.
//!
//! | model | what it is |
//! |---|---|
//! | `rv64` | QEMU's default, without what hartvm has not: H and the extensions that belong to it, Sdtrig |
//! | `rva22s64` | the mandatory part of profile RVA22S64, but for Zkt: no promise can be made about host timing |
//! | `rva23s64` | of the mandatory part of RVA23S64 all but V (with Zvfhmin, Zvbb, Zvkt), H (with Sha), Supm, Ssnpm, Sscofpmf and Zkt |
//! | `max` | everything hartvm has |
//!
//! A hart either sets A and D bits by itself (Svadu) or faults (Svade), so exactly one of the two is ever listed.

use frontend::{Extension, Isa};
use softmmu::{MmuConfig, SatpMode};

use crate::hart::csr::envcfg;

use Extension::*;

/// The value of `mmu-type` in the device tree.
pub fn mmu_type(mode: SatpMode) -> &'static str {
    match mode {
        SatpMode::Bare => "riscv,none",
        SatpMode::Sv39 => "riscv,sv39",
        SatpMode::Sv48 => "riscv,sv48",
        SatpMode::Sv57 => "riscv,sv57",
    }
}

/// What a hart can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuModel {
    isa: Isa,
    max_satp: SatpMode,
}

/// A `--cpu` argument that names something that is not there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpuModelError {
    /// The part before the first comma.
    #[error("unknown CPU model `{given}`; known are {valid}")]
    Model {
        /// What was given.
        given: String,
        /// The models there are.
        valid: String,
    },
    /// The name of a feature.
    #[error("unknown CPU feature `{given}`; known are {valid}")]
    Feature {
        /// What was given.
        given: String,
        /// The features there are.
        valid: String,
    },
    /// The value of a feature.
    #[error("CPU feature `{feature}` is `on` or `off`, not `{given}`")]
    Value {
        /// The feature.
        feature: String,
        /// What was given.
        given: String,
    },
    /// A feature that every hart has.
    #[error("CPU feature `{feature}` cannot be switched off")]
    Mandatory {
        /// The feature.
        feature: String,
    },
}

/// The extensions that every model has.
#[rustfmt::skip]
const COMMON: &[Extension] = &[
    I, M, A, F, D, C, Zic64b, Zicbom, Zicbop, Zicboz, Ziccamoa, Ziccif, Zicclsm, Ziccrse, Zicntr, Zicsr, Zifencei,
    Zihintpause, Zihpm, Za64rs, Zba, Zbb, Zbs, Ssccptr, Sscounterenw, Sstvala, Sstvecd, Ssu64xl,
];

/// One row for each model: what it adds to [`COMMON`], and its largest translation mode.
#[rustfmt::skip]
const MODELS: &[(&str, &[Extension], SatpMode)] = &[
    ("rv64",     &[Zihintntl, Zawrs, Zfa, Zbc, Sstc, Svadu, Svvptc], SatpMode::Sv57),
    ("rva22s64", &[B, Zfhmin, Svade, Svinval, Svpbmt], SatpMode::Sv39),
    ("rva23s64", &[B, Zfhmin, Svade, Svinval, Svpbmt, Zicond, Zihintntl, Zimop, Zawrs, Zfa, Zcb, Zcmop, Sstc, Svnapot],
                 SatpMode::Sv39),
    ("max",      &[B, Zihintntl, Zicond, Zimop, Zabha, Zacas, Zawrs, Zfa, Zfh, Zcb, Zcmop, Zbc, Sstc, Svadu, Svinval,
                   Svnapot, Svpbmt, Svvptc], SatpMode::Sv57),
];

/// Extensions that the front end can name but the machine does not have.
const ABSENT: &[Extension] = &[Sscofpmf];

/// What a hart cannot do without: it would not be one, or could not use its CSRs; and without C it would have to trap on
/// jumps to half a word, which no software for Linux-class harts expects.
const MANDATORY: &[Extension] = &[I, C, Zca, Zicsr];

/// Letters that stand for several extensions go together with these when they are switched off.
const PARTS: &[(Extension, &[Extension])] = &[(M, &[Zmmul]), (A, &[Zaamo, Zalrsc]), (B, &[Zba, Zbb, Zbs])];

const MODES: &[(&str, SatpMode)] =
    &[("sv39", SatpMode::Sv39), ("sv48", SatpMode::Sv48), ("sv57", SatpMode::Sv57)];

impl Default for CpuModel {
    /// The model `rv64`.
    fn default() -> Self {
        Self::from_row(&MODELS[0])
    }
}

impl std::str::FromStr for CpuModel {
    type Err = CpuModelError;

    fn from_str(text: &str) -> Result<Self, CpuModelError> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default();
        let row = MODELS.iter().find(|row| row.0 == name).ok_or_else(|| CpuModelError::Model {
            given: name.to_owned(),
            valid: Self::names().collect::<Vec<_>>().join(", "),
        })?;
        let mut model = Self::from_row(row);
        for part in parts {
            let (feature, value) = part.split_once('=').unwrap_or((part, "on"));
            let on = match value {
                "on" | "true" | "yes" => true,
                "off" | "false" | "no" => false,
                _ => {
                    return Err(CpuModelError::Value {
                        feature: feature.to_owned(),
                        given: value.to_owned(),
                    });
                }
            };
            model.switch(feature, on)?;
        }
        Ok(model)
    }
}

impl CpuModel {
    /// The names of the models.
    pub fn names() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|row| row.0)
    }

    /// The names of the features that can be switched.
    pub fn features() -> impl Iterator<Item = &'static str> {
        let modes = MODES.iter().map(|&(name, _)| name);
        Self::implemented().map(Extension::name).chain(modes)
    }

    /// The extensions, for the decoder and the CSRs.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether the hart has `extension`.
    pub fn has(&self, extension: Extension) -> bool {
        self.isa.contains(extension)
    }

    /// The largest mode that `satp` takes.
    pub fn max_satp(&self) -> SatpMode {
        self.max_satp
    }

    /// What the MMU has to know.
    pub fn mmu_config(&self) -> MmuConfig {
        MmuConfig {
            max_mode: self.max_satp,
            svadu: self.has(Svadu),
            svpbmt: self.has(Svpbmt),
            svnapot: self.has(Svnapot),
        }
    }

    /// Whether the hart has `stimecmp`.
    pub fn has_sstc(&self) -> bool {
        self.has(Sstc)
    }

    /// `misa` (Privileged 3.1.1): 64 bits, the single-letter extensions, and S and U, which every hart has.
    pub fn misa(&self) -> u64 {
        let letter = |letter: u8| 1 << (letter - b'a');
        let letters = self.isa_extensions().into_iter().map(str::as_bytes).filter_map(|name| match name {
            [single] => Some(letter(*single)),
            _ => None,
        });
        // B says no more than that all three parts are there, named in the device tree or not.
        let b = if [Zba, Zbb, Zbs].iter().all(|&part| self.has(part)) { letter(b'b') } else { 0 };
        letters.fold(2 << 62 | b | letter(b's') | letter(b'u'), |misa, bit| misa | bit)
    }

    /// The fields of `menvcfg` that are there (Privileged 3.1.18).
    pub fn envcfg_mask(&self) -> u64 {
        [
            (Zicbom, envcfg::CBIE | envcfg::CBCFE),
            (Zicboz, envcfg::CBZE),
            (Svadu, envcfg::ADUE),
            (Svpbmt, envcfg::PBMTE),
            (Sstc, envcfg::STCE),
        ]
        .into_iter()
        .filter(|&(extension, _)| self.has(extension))
        .fold(envcfg::FIOM, |mask, (_, fields)| mask | fields)
    }

    /// The names for the device tree's `riscv,isa-extensions`, in its order.
    pub fn isa_extensions(&self) -> Vec<&'static str> {
        self.isa.iter().map(Extension::name).collect()
    }

    /// The device tree's older `riscv,isa`: single letters first, then names behind underscores.
    pub fn isa_string(&self) -> String {
        let mut text = String::from("rv64");
        for name in self.isa_extensions() {
            if name.len() > 1 {
                text.push('_');
            }
            text.push_str(name);
        }
        text
    }

    fn from_row(&(_, added, max_satp): &(&str, &[Extension], SatpMode)) -> Self {
        Self { isa: Isa::of(&[COMMON, added].concat()), max_satp }
    }

    fn implemented() -> impl Iterator<Item = Extension> {
        Extension::ALL.iter().copied().filter(|extension| !ABSENT.contains(extension))
    }

    fn switch(&mut self, feature: &str, on: bool) -> Result<(), CpuModelError> {
        if let Some(index) = MODES.iter().position(|&(name, _)| name == feature) {
            // A mode that is off takes the larger ones along; one that is on is the largest.
            let index = if on { Some(index) } else { index.checked_sub(1) };
            let index = index.ok_or_else(|| CpuModelError::Mandatory { feature: feature.to_owned() })?;
            let mode = MODES[index].1;
            self.max_satp = if on { mode } else { self.max_satp.min(mode) };
            return Ok(());
        }
        let extension = Self::implemented().find(|extension| extension.name() == feature);
        let extension = extension.ok_or_else(|| CpuModelError::Feature {
            given: feature.to_owned(),
            valid: Self::features().collect::<Vec<_>>().join(", "),
        })?;
        if on {
            self.isa = self.isa.with(extension);
        } else if MANDATORY.contains(&extension) {
            return Err(CpuModelError::Mandatory { feature: feature.to_owned() });
        } else {
            self.isa = self.isa.without(extension);
            let parts = PARTS.iter().find(|(letter, _)| *letter == extension).map_or(&[][..], |row| row.1);
            self.isa = parts.iter().fold(self.isa, |isa, &part| isa.without(part));
        }
        // One or the other, never both or neither.
        match (extension, on) {
            (Svade, true) | (Svadu, false) => self.isa = self.isa.without(Svadu).with(Svade),
            (Svade, false) | (Svadu, true) => self.isa = self.isa.without(Svade).with(Svadu),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `riscv,isa` of QEMU 11.1's models of the same names.
    const QEMU_RV64: &str = "rv64imafdch_zic64b_zicbom_zicbop_zicboz_ziccamoa_ziccif_zicclsm_ziccrse_zicntr_zicsr_zifencei_zihintntl_zihintpause_zihpm_zmmul_za64rs_zaamo_zalrsc_zawrs_zfa_zca_zcd_zba_zbb_zbc_zbs_sdtrig_shcounterenw_shgatpa_shtvala_shvsatpa_shvstvala_shvstvecd_ssccptr_sscounterenw_ssstrict_sstc_sstvala_sstvecd_ssu64xl_svadu_svvptc";
    const QEMU_RVA22S64: &str = "rv64imafdcb_zic64b_zicbom_zicbop_zicboz_ziccamoa_ziccif_zicclsm_ziccrse_zicntr_zicsr_zifencei_zihintpause_zihpm_zmmul_za64rs_zaamo_zalrsc_zfhmin_zca_zcd_zba_zbb_zbs_zkt_sdtrig_shcounterenw_shgatpa_shtvala_shvsatpa_shvstvala_shvstvecd_ssccptr_sscounterenw_ssstrict_sstvala_sstvecd_ssu64xl_svade_svinval_svpbmt";
    const QEMU_RVA23S64: &str = "rv64imafdcbvh_zic64b_zicbom_zicbop_zicboz_ziccamoa_ziccif_zicclsm_ziccrse_zicond_zicntr_zicsr_zifencei_zihintntl_zihintpause_zihpm_zimop_zmmul_za64rs_zaamo_zalrsc_zawrs_zfa_zfhmin_zca_zcb_zcd_zcmop_zba_zbb_zbs_zkt_zvbb_zve32f_zve32x_zve64f_zve64d_zve64x_zvfhmin_zvkb_zvkt_sdtrig_shcounterenw_sha_shgatpa_shtvala_shvsatpa_shvstvala_shvstvecd_smnpm_smstateen_ssccptr_sscofpmf_sscounterenw_ssnpm_ssstateen_ssstrict_sstc_sstvala_sstvecd_ssu64xl_supm_svade_svinval_svnapot_svpbmt";
    const QEMU_MAX: &str = "rv64imafdcbvh_zic64b_zicbom_zicbop_zicboz_ziccamoa_ziccif_zicclsm_ziccrse_zicfilp_zicfiss_zicond_zicntr_zicsr_zifencei_zihintntl_zihintpause_zihpm_zimop_zmmul_za64rs_zaamo_zabha_zacas_zalasr_zalrsc_zama16b_zawrs_zfa_zfbfmin_zfh_zfhmin_zca_zcb_zcd_zcmop_zba_zbb_zbc_zbkb_zbkc_zbkx_zbs_zk_zkn_zknd_zkne_zknh_zkr_zks_zksed_zksh_zkt_ztso_zvbb_zvbc_zve32f_zve32x_zve64f_zve64d_zve64x_zvfbfa_zvfbfmin_zvfbfwma_zvfh_zvfhmin_zvkb_zvkg_zvkn_zvknc_zvkned_zvkng_zvknha_zvknhb_zvks_zvksc_zvksed_zvksg_zvksh_zvkt_sdtrig_shcounterenw_sha_shgatpa_shtvala_shvsatpa_shvstvala_shvstvecd_smaia_smcdeleg_smcntrpmf_smcsrind_smctr_smepmp_smpmpmt_smmpm_smnpm_smstateen_ssaia_ssccfg_ssccptr_sscofpmf_sscounterenw_sscsrind_ssctr_ssdbltrp_ssnpm_sspm_ssstateen_ssstrict_sstc_sstvala_sstvecd_ssu64xl_supm_svadu_svinval_svnapot_svpbmt_svrsw60t59b_svvptc";

    /// QEMU's string without the extensions that hartvm has not.
    fn ours_of(qemu: &str) -> String {
        let known = |name: &str| CpuModel::implemented().any(|extension| extension.name() == name);
        let mut names = qemu.strip_prefix("rv64").unwrap().split('_');
        let letters: String = names.next().unwrap().chars().filter(|&c| known(&c.to_string())).collect();
        let rest: String = names.filter(|name| known(name)).map(|name| format!("_{name}")).collect();
        format!("rv64{letters}{rest}")
    }

    fn model(text: &str) -> CpuModel {
        text.parse().unwrap()
    }

    #[test]
    fn models_are_qemus_as_far_as_implemented_and_in_its_order() {
        assert_eq!(model("rv64").isa_string(), ours_of(QEMU_RV64));
        assert_eq!(model("rva22s64").isa_string(), ours_of(QEMU_RVA22S64));
        assert_eq!(model("rva23s64").isa_string(), ours_of(QEMU_RVA23S64));
        assert_eq!(model("max").isa_string(), ours_of(QEMU_MAX));
    }

    #[test]
    fn the_default_is_rv64() {
        assert_eq!(CpuModel::default(), model("rv64"));
        assert!(CpuModel::default().isa_string().starts_with("rv64imafdc_zic64b_"));
    }

    #[test]
    fn translation_modes_are_qemus() {
        let modes = ["rv64", "rva22s64", "rva23s64", "max"].map(|name| mmu_type(model(name).max_satp()));
        assert_eq!(modes, ["riscv,sv57", "riscv,sv39", "riscv,sv39", "riscv,sv57"]);
    }

    #[test]
    fn modes_can_be_limited_and_raised() {
        assert_eq!(model("max,sv57=off").max_satp(), SatpMode::Sv48);
        assert_eq!(model("max,sv48=off").max_satp(), SatpMode::Sv39);
        assert_eq!(model("max,sv39").max_satp(), SatpMode::Sv39);
        assert_eq!(model("rva22s64,sv57=on").max_satp(), SatpMode::Sv57);
        assert_eq!(model("rva22s64,sv57=off").max_satp(), SatpMode::Sv39);
    }

    #[test]
    fn features_switch_extensions_with_what_belongs_to_them() {
        assert!(model("rv64,zfh=on").has(Zfhmin));
        assert!(!model("max,f=off").has(Zfh));
        let without_d = model("max,d=off");
        assert!(without_d.has(F) && !without_d.has(Zcd));
        assert!("max,c=off".parse::<CpuModel>().is_err());
        assert!(!model("max,a=false").has(Zacas));
    }

    #[test]
    fn exactly_one_of_svade_and_svadu_is_there() {
        let pair = |text| (model(text).has(Svade), model(text).has(Svadu));
        assert_eq!(pair("rv64"), (false, true));
        assert_eq!(pair("rv64,svade=on"), (true, false));
        assert_eq!(pair("rv64,svadu=off"), (true, false));
        assert_eq!(pair("rva22s64,svadu"), (false, true));
        assert_eq!(pair("rva22s64,svade=off"), (false, true));
    }

    #[test]
    fn misa_shows_the_letters() {
        let base = 0x8000_0000_0014_112d;
        assert_eq!(model("rva22s64").misa(), base | 2);
        assert_eq!(model("rv64").misa(), base | 2, "Zba, Zbb and Zbs make B");
        assert_eq!(model("rv64,zba=off").misa(), base);
        assert_eq!(model("rv64,d=off,zbb=off").misa(), base & !8);
    }

    #[test]
    fn menvcfg_has_the_fields_of_the_extensions() {
        assert_eq!(model("rv64").envcfg_mask(), 0xa000_0000_0000_00f1);
        assert_eq!(model("rva22s64").envcfg_mask(), 0x4000_0000_0000_00f1);
        assert_eq!(model("rv64,zicboz=off,zicbom=off,sstc=off").envcfg_mask(), 0x2000_0000_0000_0001);
    }

    #[test]
    fn errors_name_what_would_be_right() {
        let error = |text: &str| text.parse::<CpuModel>().unwrap_err().to_string();
        assert_eq!(error("host"), "unknown CPU model `host`; known are rv64, rva22s64, rva23s64, max");
        assert!(error("max,v=true").starts_with("unknown CPU feature `v`; known are i, m, a,"));
        assert!(error("max,v=true").ends_with("svvptc, sv39, sv48, sv57"));
        assert_eq!(error("max,zfh=maybe"), "CPU feature `zfh` is `on` or `off`, not `maybe`");
        assert_eq!(error("max,i=off"), "CPU feature `i` cannot be switched off");
        assert_eq!(error("max,sv39=off"), "CPU feature `sv39` cannot be switched off");
        assert!(error("max,sscofpmf").starts_with("unknown CPU feature"));
    }
}
