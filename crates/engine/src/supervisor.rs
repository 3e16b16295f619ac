//! The daemon's end of the conversation with the supervisor.

use spec::{ErrorKind, Kinded};

#[derive(Debug, Clone, thiserror::Error)]
pub enum SupervisorError {
    #[error("the supervisor is not reachable")]
    Unreachable,
}

impl Kinded for SupervisorError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}
