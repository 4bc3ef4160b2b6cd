//! Whether what an image says of its clusters agrees with how they are used, and making it so.

use std::collections::{HashMap, HashSet};

use super::header::{self, DIRTY};
use super::tables::{COPIED, Mapping, OFFSET};
use super::{Meta, Qcow2, Qcow2Error, compressed, read_table};
use crate::disk::lock::LockedFile;

/// Clusters of an image that can be checked: 8 TiB in clusters of 64 KiB.
const MAX_CLUSTERS: u64 = 1 << 27;
/// Entries of all L1 tables together, those of snapshots included.
const MAX_L1_ENTRIES: u64 = 1 << 26;
/// Findings that are told one by one.
const MAX_MESSAGES: usize = 20;

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Things that can cost data.
    pub errors: u64,
    /// Clusters that are marked as used and are not.
    pub leaks: u64,
    /// Errors and leaks that were repaired.
    pub repaired: u64,
    /// The first errors, in words.
    pub messages: Vec<String>,
}

impl Findings {
    /// Whether there is nothing left to repair.
    pub fn is_clean(&self) -> bool {
        self.errors + self.leaks == self.repaired
    }

    fn error(&mut self, message: impl FnOnce() -> String) {
        self.errors += 1;
        if self.messages.len() < MAX_MESSAGES {
            self.messages.push(message());
        }
    }
}

/// How often each cluster is used.
struct Uses {
    counts: Vec<u32>,
    bits: u32,
}

impl Uses {
    /// Counts the clusters that `len` bytes at `offset` touch; `false` if they are not all in the file.
    fn add(&mut self, offset: u64, len: u64, times: u32) -> bool {
        let Some(end) = offset.checked_add(len) else { return false };
        if end.div_ceil(1 << self.bits) > self.counts.len() as u64 {
            return false;
        }
        for cluster in offset >> self.bits..end.div_ceil(1 << self.bits) {
            let count = &mut self.counts[cluster as usize];
            *count = count.saturating_add(times);
        }
        true
    }

    fn of(&self, offset: u64) -> u32 {
        usize::try_from(offset >> self.bits).ok().and_then(|at| self.counts.get(at)).copied().unwrap_or(0)
    }
}

impl Qcow2 {
    /// Opens an image to check or repair it, as bad as it may be.
    pub(in crate::disk) fn open_to_check(
        file: LockedFile,
        len: u64,
        repair: bool,
    ) -> Result<Self, Qcow2Error> {
        // The refcounts are wanted either way.
        let mut image = Self::open_unchecked(file, len, false, None)?;
        image.read_only = !repair;
        Ok(image)
    }

    /// Checks the whole image; nobody else may use it meanwhile.
    pub(in crate::disk) fn check(&mut self, repair: bool) -> Result<Findings, Qcow2Error> {
        let mut findings = Findings::default();
        // Without its block a cluster counts as unused, and is counted anew.
        self.drop_bad_blocks(&mut findings);
        let bad_blocks = findings.errors;
        let uses = self.count_uses(&mut findings)?;
        let unrepairable = findings.errors - bad_blocks;
        self.compare_refcounts(&uses, &mut findings, repair)?;
        self.compare_copied(&uses, &mut findings, repair)?;
        if repair {
            let meta = self.meta.get_mut();
            meta.header.incompatible &= !DIRTY;
            if unrepairable == 0 {
                meta.header.incompatible &= !header::CORRUPT;
            }
            meta.tables.l1_due = true;
            self.commit()?;
            findings.repaired = findings.errors + findings.leaks - unrepairable;
        }
        Ok(findings)
    }

    /// Forgets refcount blocks that cannot be where the table says.
    fn drop_bad_blocks(&mut self, findings: &mut Findings) {
        let (bits, refcounts) = (self.cluster_bits, &mut self.meta.get_mut().refcounts);
        let mut seen = HashSet::new();
        for (index, offset) in refcounts.table.iter_mut().enumerate().filter(|(_, offset)| **offset != 0) {
            let inside = offset.is_multiple_of(1 << bits) && *offset >> bits < refcounts.end;
            if !inside || !seen.insert(*offset) {
                findings.error(|| format!("refcount block {index} is at {offset:#x}, where it cannot be"));
                *offset = 0;
            }
        }
    }

    fn count_uses(&mut self, findings: &mut Findings) -> Result<Uses, Qcow2Error> {
        let bits = self.cluster_bits;
        let Meta { tables, refcounts, header } = self.meta.get_mut();
        if refcounts.end > MAX_CLUSTERS {
            return Err(Qcow2Error::Size(
                "the image has too many clusters to be checked here; use `qemu-img check`",
            ));
        }
        let mut uses = Uses { counts: vec![0; refcounts.end as usize], bits };
        uses.add(0, 1 << bits, 1);
        uses.add(header.reftable_offset, u64::from(header.reftable_clusters) << bits, 1);
        for offset in refcounts.table.iter().filter(|offset| **offset != 0) {
            uses.add(*offset, 1 << bits, 1);
        }

        let (snapshots, snapshot_bytes) = header::snapshots(&self.file, header)?;
        uses.add(header.snapshots_offset, snapshot_bytes, 1);
        let total: u64 = snapshots.iter().map(|snapshot| u64::from(snapshot.l1_size)).sum();
        if total + tables.l1.len() as u64 > MAX_L1_ENTRIES {
            return Err(Qcow2Error::Size(
                "the image has too large snapshots to be checked here; use `qemu-img check`",
            ));
        }
        // How often each L2 table is used. A table in two snapshots uses everything in it twice.
        let mut l2: HashMap<u64, u32> = HashMap::new();
        let mut add_l1 = |l1: &[u64]| {
            for entry in l1.iter().filter(|entry| **entry & OFFSET != 0) {
                *l2.entry(entry & OFFSET).or_default() += 1;
            }
        };
        uses.add(header.l1_offset, u64::from(header.l1_size) * 8, 1);
        add_l1(&tables.l1);
        for snapshot in &snapshots {
            if !uses.add(snapshot.l1_offset, u64::from(snapshot.l1_size) * 8, 1) {
                findings.error(|| {
                    format!("the L1 table of snapshot `{}` lies outside of the image", snapshot.name)
                });
                continue;
            }
            add_l1(&read_table(&self.file, snapshot.l1_offset, snapshot.l1_size as usize)?);
        }
        for (offset, times) in l2 {
            if !offset.is_multiple_of(1 << bits) || !uses.add(offset, 1 << bits, times) {
                findings.error(|| format!("an L2 table is at {offset:#x}, where it cannot be"));
                continue;
            }
            for entry in read_table(&self.file, offset, 1 << (bits - 3))? {
                let counted = match tables.decode(entry, refcounts.end) {
                    Ok(Mapping::Data(host) | Mapping::Zero(Some(host))) => uses.add(host, 1 << bits, times),
                    Ok(Mapping::Compressed(entry)) => {
                        let (offset, len) = compressed::extent(entry, bits);
                        // The last sectors may be beyond the end of the file.
                        uses.add(offset, len.min((refcounts.end << bits) - offset), times)
                    }
                    Ok(Mapping::Unallocated | Mapping::Zero(None)) => true,
                    Err(_) => false,
                };
                if !counted {
                    findings.error(|| {
                        format!(
                            "the L2 table at {offset:#x} has the entry {entry:#018x}, which makes no sense"
                        )
                    });
                }
            }
        }
        Ok(uses)
    }

    fn compare_refcounts(
        &mut self,
        uses: &Uses,
        findings: &mut Findings,
        repair: bool,
    ) -> Result<(), Qcow2Error> {
        let refcounts = &mut self.meta.get_mut().refcounts;
        for (cluster, &want) in (0_u64..).zip(&uses.counts) {
            let (have, want) = (refcounts.get(&self.file, cluster)?, u64::from(want));
            if have < want {
                findings.error(|| {
                    format!("cluster {cluster} is used {want} times and marked as used {have} times")
                });
            } else if have > want {
                findings.leaks += 1;
            }
            if have != want && repair {
                refcounts.set(&self.file, cluster, want)?;
            }
        }
        Ok(())
    }

    /// COPIED must say of each cluster of the active tables whether it is used once.
    fn compare_copied(
        &mut self,
        uses: &Uses,
        findings: &mut Findings,
        repair: bool,
    ) -> Result<(), Qcow2Error> {
        let entries = self.meta.get_mut().tables.l1.len() as u32;
        for index in 0..entries {
            let Meta { tables, refcounts, .. } = self.meta.get_mut();
            let l1_entry = tables.l1[index as usize];
            if l1_entry & OFFSET == 0 || tables.load(&self.file, index, refcounts.end).is_err() {
                continue;
            }
            if (l1_entry & COPIED != 0) != (uses.of(l1_entry & OFFSET) == 1) {
                findings
                    .error(|| format!("L1 entry {index} is wrong about being the only user of its table"));
                if repair {
                    tables.make_due(index);
                }
            }
            for n in 0..tables.entries() as usize {
                let Some(entry) = tables.get(index).map(|table| table.entries[n]) else { break };
                let once = match tables.decode(entry, refcounts.end) {
                    Ok(Mapping::Data(host) | Mapping::Zero(Some(host))) => uses.of(host) == 1,
                    Ok(_) => false,
                    Err(_) => continue,
                };
                if (entry & COPIED != 0) != once {
                    findings.error(|| {
                        format!("entry {n} of L2 table {index} is wrong about being the only user")
                    });
                    if repair {
                        tables.set(index, n, entry & !COPIED | if once { COPIED } else { 0 });
                    }
                }
            }
            if repair {
                self.commit_if_full()?;
            }
        }
        Ok(())
    }
}
