//! `cargo xtask torture [KILLS]`: kills the daemon at random moments under load, 500 times unless
//! told otherwise: containers first, then the store (`torture 300 store` for the latter alone) in
//! both forms of layers. The tests are those that `make test` runs with a small count.

use std::process::Command;

const TESTS: [(&str, &str, &str); 3] = [
    ("containers", "survival::random_kills_under_load_lose_and_leak_nothing", "dirs"),
    ("store", "kills::kills_in_the_middle_of_the_stores_work_leave_nothing", "dirs"),
    ("store", "kills::kills_in_the_middle_of_the_stores_work_leave_nothing", "erofs"),
];

pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let kills = args.first().map_or("500", String::as_str);
    let only = args.get(1);
    for (_, test, layout) in TESTS.iter().filter(|(name, ..)| only.is_none_or(|only| only == name))
    {
        let status = Command::new("cargo")
            .current_dir(crate::root())
            .args(["test", "--package", "boxship", "--test", "it", "--"])
            .args([test, "--exact", "--nocapture"])
            .env("BOXSHIP_TORTURE", kills)
            .env("BOXSHIP_TEST_LAYOUT", layout)
            .env("BOXSHIP_TEST_LIMIT", "7200")
            .status()
            .map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("{test}, {layout}, {kills} kills: {status}"));
        }
    }
    Ok(())
}
