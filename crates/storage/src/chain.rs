//! Chain ids: the name of a layer together with everything below it.

use sha2::{Digest as _, Sha256};
use spec::Digest;

/// The chain id of `diff_id` on top of `parent`, as the OCI image specification defines it.
pub fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => *diff_id,
        Some(parent) => sha256(format!("{parent} {diff_id}").as_bytes()),
    }
}

/// The chain id of the topmost of `diff_ids`, bottom first; none when there are no layers.
pub fn top_chain<'a>(diff_ids: impl IntoIterator<Item = &'a Digest>) -> Option<Digest> {
    diff_ids.into_iter().fold(None, |parent, diff_id| Some(chain_id(parent.as_ref(), diff_id)))
}

pub fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_those_of_the_specification() {
        let (a, b) = (sha256(b"a"), sha256(b"b"));
        assert_eq!(chain_id(None, &a), a);
        assert_eq!(top_chain([&a, &b]), Some(sha256(format!("{a} {b}").as_bytes())));
        assert_eq!(top_chain([]), None);
    }
}
