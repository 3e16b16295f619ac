//! The reference graph of layers: who holds which, counted anew.

use std::collections::{BTreeSet, HashMap};

use metadata::{StoreError, View, WriteTxn};
use spec::Digest;

use super::{CheckOptions, CheckReport, Problem};
use crate::error::StorageError;
use crate::records::{CONTAINERS, LAYERS, LayerRecord, layer_place};
use crate::storage::Storage;

/// Who holds layers besides containers and other layers.
pub trait Holders {
    /// The layers held; one that is held twice is there twice.
    fn held(view: &impl View) -> Result<Vec<Digest>, StoreError>;
}

/// What is known of layers from elsewhere: for each chain id the diff id and the parent.
pub type Lineage = HashMap<Digest, (Digest, Option<Digest>)>;

/// Where records that are missing come from.
#[derive(Default)]
struct Known {
    lineage: Lineage,
    /// What the directories of layers say, which are there.
    committed: HashMap<Digest, LayerRecord>,
}

impl Known {
    fn record(&self, chain: &Digest) -> Option<LayerRecord> {
        let committed = self.committed.get(chain).cloned();
        let lost = || {
            let (diff_id, parent) = self.lineage.get(chain)?;
            Some(LayerRecord::lost(*diff_id, *parent))
        };
        committed.or_else(lost)
    }
}

/// The records as they should be, but for their counts, and how many hold each layer.
struct Counted {
    records: HashMap<Digest, LayerRecord>,
    holders: HashMap<Digest, u64>,
    /// Layers that somebody holds and that had no record. Those whose lineage is known have one
    /// in `records`: they are lost.
    missing: BTreeSet<Digest>,
}

impl Counted {
    fn read<H: Holders>(view: &impl View, known: &Known) -> Result<Self, StoreError> {
        let mut records = HashMap::new();
        for (hex, record) in LAYERS.scan(view)? {
            if let Ok(chain) = Digest::from_hex(&hex) {
                records.insert(chain, record);
            }
        }
        let mut held = H::held(view)?;
        held.extend(records.values().filter_map(|record| record.parent));
        for (_, container) in CONTAINERS.scan(view)? {
            held.extend(container.chain);
            held.extend(container.mounted);
        }
        let mut counted = Self { records, holders: HashMap::new(), missing: BTreeSet::new() };
        while let Some(chain) = held.pop() {
            *counted.holders.entry(chain).or_default() += 1;
            if counted.records.contains_key(&chain) || !counted.missing.insert(chain) {
                continue;
            }
            if let Some(record) = known.record(&chain) {
                held.extend(record.parent);
                counted.records.insert(chain, record);
            }
        }
        Ok(counted)
    }

    fn holders(&self, chain: &Digest) -> u64 {
        self.holders.get(chain).copied().unwrap_or_default()
    }

    /// Records whose counts are wrong, with what they should be; missing ones among them.
    fn wrong(&self) -> impl Iterator<Item = (&Digest, &LayerRecord, u64)> {
        let all = self.records.iter();
        all.map(|(chain, record)| (chain, record, self.holders(chain)))
            .filter(|(_, record, holders)| record.holders != *holders)
    }
}

impl Storage {
    /// Holds the counts in the records of layers against those who refer to them.
    pub fn check_counts<H: Holders>(
        &self,
        options: CheckOptions,
        lineage: &Lineage,
        report: &mut CheckReport,
    ) -> Result<(), StorageError> {
        let (view, held) = self.leases().picture(self.store())?;
        let mut known = Known { lineage: lineage.clone(), ..Known::default() };
        for chain in Counted::read::<H>(&view, &known)?.missing {
            if let Ok(record) = self.read_committed(&chain.hex()) {
                known.committed.insert(chain, record);
            }
        }
        let counted = Counted::read::<H>(&view, &known)?;
        let mut problems = Vec::new();
        let noted = |chain: &Digest| counted.missing.contains(chain);
        for (chain, record, holders) in counted.wrong().filter(|(chain, ..)| !noted(chain)) {
            let reason = format!("its record counts {} references, not {holders}", record.holders);
            let problem = Problem::new("layer", chain.to_string(), reason);
            problems.push(problem.solved_if(options.repair, "corrected"));
        }
        for chain in &counted.missing {
            let problem = Problem::new("layer", chain.to_string(), "its record is missing");
            problems.push(match known.record(chain).filter(|_record| options.repair) {
                None => problem,
                Some(record) if record.lost => {
                    Problem { remedy: Some("noted as lost".to_owned()), ..problem }
                }
                Some(_) => problem.solved("written again from what its directory says"),
            });
        }
        let idle = |chain: &&Digest| counted.holders(chain) == 0 && !held.has(&layer_place(chain));
        let idle: Vec<_> = counted.records.keys().filter(idle).copied().collect();
        for chain in &idle {
            let problem = Problem::new("layer", chain.to_string(), "nobody refers to it");
            problems.push(problem.solved_if(options.repair, "removed"));
        }
        if options.repair && !problems.is_empty() {
            self.store().write(move |txn| recount::<H>(txn, &known))?;
            self.collect_unheld(idle)?;
        }
        problems.sort_by(|one, other| one.name.cmp(&other.name));
        report.problems.extend(problems);
        Ok(())
    }
}

/// Writes the counts as they are, and what is known of layers whose records are missing.
fn recount<H: Holders>(txn: &mut WriteTxn<'_>, known: &Known) -> Result<(), StoreError> {
    let counted = Counted::read::<H>(txn, known)?;
    for (chain, record, holders) in counted.wrong() {
        LAYERS.put(txn, &chain.hex(), &LayerRecord { holders, ..record.clone() })?;
    }
    Ok(())
}
