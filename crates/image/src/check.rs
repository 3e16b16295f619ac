//! The images' part of `system check`: configs and names, and which images a fault concerns.

use std::collections::{BTreeMap, HashMap};

use metadata::{StoreError, View};
use spec::Digest;
use storage::{CheckOptions, CheckReport, Holders, Lineage, Problem, StorageError, chain_id};

use crate::document;
use crate::error::ImageError;
use crate::images::Images;
use crate::records::{IMAGES, ImageId, Names, REFERENCES};

/// Each image holds its topmost layer.
#[derive(Debug)]
struct OfImages;

impl Holders for OfImages {
    fn held(view: &impl View) -> Result<Vec<Digest>, StoreError> {
        Ok(IMAGES.scan(view)?.into_iter().filter_map(|(_, record)| record.chain).collect())
    }
}

impl Images {
    /// Checks all images with their layers and blobs, the counts of references, and what is below
    /// the root of the storage.
    pub fn check(&self, options: CheckOptions, report: &mut CheckReport) -> Result<(), ImageError> {
        let (lineage, users) = self.lineage()?;
        self.storage.check_counts::<OfImages>(options, &lineage, report)?;
        self.check_configs(options, report)?;
        self.check_references(options, report)?;
        let first = report.problems.len();
        self.storage.check_layers(options, report)?;
        for problem in &mut report.problems[..] {
            if let ("layer", Ok(chain)) = (problem.kind, problem.name.parse::<Digest>())
                && !problem.solved
            {
                problem.needed_by = users.get(&chain).cloned().unwrap_or_default();
            }
        }
        drop_repeated(&mut report.problems, first);
        self.check_blobs(options, report)?;
        self.storage.check_leaks(options, report)?;
        self.storage.check_containers(options, report)?;
        Ok(())
    }

    /// What the configs say of layers, and the images that have each.
    fn lineage(&self) -> Result<(Lineage, HashMap<Digest, Vec<String>>), ImageError> {
        let view = self.store().begin_read()?;
        let names = Names::read(&view)?;
        let (mut lineage, mut users) = (Lineage::new(), HashMap::<Digest, Vec<String>>::new());
        for (hex, _) in IMAGES.scan(&view)? {
            let Ok(id) = Digest::from_hex(&hex) else { continue };
            let document = self.storage.content().get(&id).map_err(ImageError::from);
            let Ok(document) = document.and_then(|raw| document::parse(&raw)) else { continue };
            let shown = show(&id, &names);
            let mut parent = None;
            for diff_id in document.diff_ids {
                let chain = chain_id(parent.as_ref(), &diff_id);
                lineage.insert(chain, (diff_id, parent));
                users.entry(chain).or_default().extend(shown.iter().cloned());
                parent = Some(chain);
            }
        }
        Ok((lineage, users))
    }

    /// The config of every image: there, whole, and of the layers that the record says.
    fn check_configs(
        &self,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<(), ImageError> {
        for (hex, _) in self.store().scan(IMAGES)? {
            let Ok(id) = Digest::from_hex(&hex) else { continue };
            // One image at a time: it can come and go with its config only under this lock.
            let _editing = self.edit();
            let view = self.store().begin_read()?;
            let Some(record) = IMAGES.get(&view, &hex)? else { continue };
            report.images += 1;
            let reason = match self.storage.content().get(&id) {
                Ok(raw) => match document::parse(&raw) {
                    Ok(document) if storage::top_chain(&document.diff_ids) == record.chain => {
                        continue;
                    }
                    Ok(_) => "its record names other layers than its config".to_owned(),
                    Err(error) => error.to_string(),
                },
                Err(error @ (StorageError::NoBlob { .. } | StorageError::BlobDamaged { .. })) => {
                    error.to_string()
                }
                Err(error) => return Err(error.into()),
            };
            let mut problem = Problem::new("image", id.to_string(), reason);
            problem.needed_by = show(&id, &Names::read(&view)?);
            if options.repair {
                let place = format!("content/sha256/{hex}");
                let aside = self.storage.quarantine(&place, &hex)?;
                problem.remedy = aside.map(|path| format!("set aside as {}", path.display()));
            }
            report.problems.push(problem);
        }
        Ok(())
    }

    /// Names of images that are not there.
    fn check_references(
        &self,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<(), ImageError> {
        let view = self.store().begin_read()?;
        let mut lost = BTreeMap::new();
        for (key, record) in REFERENCES.scan(&view)? {
            if IMAGES.get(&view, &record.image.hex())?.is_none() {
                let reason = format!("image {} is not there", record.image);
                let problem = Problem::new("name", key.clone(), reason);
                report.problems.push(problem.solved_if(options.repair, "removed"));
                lost.insert(key, record.image);
            }
        }
        if !options.repair || lost.is_empty() {
            return Ok(());
        }
        self.store().write(move |txn| -> Result<(), StoreError> {
            for (key, image) in &lost {
                // It may have been given to another image, or that one may be back.
                let now = REFERENCES.get(txn, key)?.map(|record| record.image);
                if now == Some(*image) && IMAGES.get(txn, &image.hex())?.is_none() {
                    REFERENCES.remove(txn, key);
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Blobs that belong to no image.
    fn check_blobs(
        &self,
        options: CheckOptions,
        report: &mut CheckReport,
    ) -> Result<(), ImageError> {
        let content = self.storage.content();
        let _editing = self.edit();
        let view = self.store().begin_read()?;
        for id in content.all()? {
            if IMAGES.get(&view, &id.hex())?.is_some() {
                continue;
            }
            if options.repair {
                content.remove(&id)?;
            }
            let problem = Problem::new("blob", id.to_string(), "no image has it");
            report.problems.push(problem.solved_if(options.repair, "removed"));
        }
        let half = if options.repair { content.sweep()? } else { content.half_written()? };
        for name in half {
            let problem = Problem::new("blob", name, "it was not written to its end");
            report.problems.push(problem.solved_if(options.repair, "removed"));
        }
        Ok(())
    }
}

/// How an image is called by whoever is to load it again.
fn show(id: &ImageId, names: &Names) -> Vec<String> {
    let names: Vec<_> = names.of(id).iter().map(spec::Reference::familiar).collect();
    if names.is_empty() { vec![id.to_string()] } else { names }
}

/// A layer that was noted as lost a moment ago is not found a second time.
fn drop_repeated(problems: &mut Vec<Problem>, first: usize) {
    let noted: Vec<String> = problems[..first]
        .iter()
        .filter(|problem| problem.kind == "layer" && !problem.solved && problem.remedy.is_some())
        .map(|problem| problem.name.clone())
        .collect();
    let mut at = 0;
    problems.retain(|problem| {
        at += 1;
        at <= first || !noted.contains(&problem.name)
    });
}
