//! Which file a command means, and where it starts: `PATH` search and working directory, with the
//! rights of the user it will run as.

use std::ffi::CString;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, stat};
use rustix::io::Errno;
use rustix::process::{fchdir, getcwd};
use sys::RootDir;

use super::step::invalid;
use crate::protocol::Failure;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Finds the file that `program` names, as a shell would.
pub(super) fn find(program: &str, environment: &[String]) -> Result<CString, Failure> {
    let failed = |errno: Errno, in_path| Failure::Exec {
        program: program.to_owned(),
        errno: errno.raw_os_error(),
        in_path,
    };
    if program.contains('/') {
        executable(program).map_err(|errno| failed(errno, false))?;
        return c_string(program);
    }
    if !program.is_empty() {
        for candidate in candidates(program, search_path(environment)) {
            if executable(&candidate).is_ok() {
                return c_string(&candidate);
            }
        }
    }
    // Docker tells a file that may not be executed in PATH from none at all no more than this.
    Err(failed(Errno::NOENT, true))
}

/// The last `PATH` of an environment.
fn search_path(environment: &[String]) -> &str {
    let path = environment.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    path.unwrap_or(DEFAULT_PATH)
}

/// The files to try, in order. An empty directory is the current one.
fn candidates<'a>(program: &'a str, path: &'a str) -> impl Iterator<Item = String> + 'a {
    path.split(':').map(move |directory| match directory {
        "" => format!("./{program}"),
        directory => format!("{}/{program}", directory.trim_end_matches('/')),
    })
}

fn executable(path: &str) -> Result<(), Errno> {
    if FileType::from_raw_mode(stat(path)?.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Copies `text` for the kernel.
pub(super) fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_nul| invalid(format!("{text:?} contains a zero byte")))
}

/// Goes to the working directory. Links like `/proc/self/fd/N` are not followed, and the result
/// must lie below the root (CVE-2024-21626).
pub(super) fn enter(root: &RootDir, path: &str) -> Result<(), Failure> {
    let path = if path.is_empty() { "/" } else { path };
    let failed = |errno: Errno| Failure::Cwd { path: path.to_owned(), errno: errno.raw_os_error() };
    root.open_in(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .and_then(fchdir)
        .map_err(failed)?;
    // The kernel says `(unreachable)/...` of a directory outside.
    let inside = getcwd(Vec::new()).is_ok_and(|cwd| cwd.to_bytes().starts_with(b"/"));
    if inside { Ok(()) } else { Err(failed(Errno::NOENT)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn candidates_follow_path() {
        let check = |path: &str, expect: &[&str]| {
            assert_eq!(candidates("sh", path).collect::<Vec<_>>(), expect);
        };
        check("/bin:/usr/bin/", &["/bin/sh", "/usr/bin/sh"]);
        check(":/bin", &["./sh", "/bin/sh"]);
        check("/", &["/sh"]);
    }

    #[test]
    fn the_last_path_counts() {
        let environment = ["PATH=/a", "X=1", "PATH=/b"].map(str::to_owned);
        assert_eq!(search_path(&environment), "/b");
        assert_eq!(search_path(&[]), DEFAULT_PATH);
    }

    #[test]
    fn files_that_cannot_be_executed() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().to_str().unwrap().to_owned();
        let environment = [format!("PATH={base}/none:{base}")];
        let check = |program: &str, expect: &str| {
            let got = match find(program, &environment) {
                Ok(path) => path.into_string().unwrap(),
                Err(failure) => failure.to_string(),
            };
            assert_eq!(got.replace(&base, "BASE"), expect, "{program}");
        };
        std::fs::write(directory.path().join("plain"), "").unwrap();
        std::fs::write(directory.path().join("tool"), "").unwrap();
        std::fs::create_dir(directory.path().join("dir")).unwrap();
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path().join("tool"), executable).unwrap();

        check("tool", "BASE/tool");
        check("plain", r#"exec: "plain": executable file not found in $PATH"#);
        check("dir", r#"exec: "dir": executable file not found in $PATH"#);
        check("", r#"exec: "": executable file not found in $PATH"#);
        check(&format!("{base}/plain"), r#"exec: "BASE/plain": permission denied"#);
        check(&format!("{base}/dir"), r#"exec: "BASE/dir": is a directory: permission denied"#);
        check(
            &format!("{base}/none"),
            r#"exec: "BASE/none": stat BASE/none: no such file or directory"#,
        );
    }
}
