//! Kernel errors with the name of the step that met them.

use rustix::io::Errno;

use crate::protocol::Failure;

pub(super) trait Step<T> {
    /// Names the step, with its object; the name is built only on failure.
    fn step(self, name: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, name: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure::System { step: name(), errno: errno.raw_os_error() })
    }
}

pub(super) fn invalid(text: impl Into<String>) -> Failure {
    Failure::Invalid { text: text.into() }
}
