//! What an image says about running it, merged into what the user said: the user wins.

use std::collections::BTreeMap;

use api_types::container::Config;
use spec::oci::{Healthcheck, RunConfig};

/// Fills `config` from the image.
///
/// An entrypoint of the user's resets the image's command, an explicitly empty one (`[]`, `[""]`)
/// the image's entrypoint as well.
pub(crate) fn merge_image(config: &mut Config, image: &RunConfig) {
    merge_command(config, image);
    if config.user.is_empty() {
        config.user = image.user.clone().unwrap_or_default();
    }
    if config.working_dir.is_empty() {
        config.working_dir = image.working_dir.clone().unwrap_or_default();
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = image.stop_signal.clone().unwrap_or_default();
    }
    merge_environment(config, image.env.as_deref().unwrap_or_default());
    for (key, value) in image.labels.iter().flatten() {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    merge_set(&mut config.exposed_ports, image.exposed_ports.as_ref());
    merge_set(&mut config.volumes, image.volumes.as_ref());
    merge_health(&mut config.healthcheck, image.healthcheck.as_ref());
}

fn merge_command(config: &mut Config, image: &RunConfig) {
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&image.cmd);
            config.args_escaped |= image.args_escaped.unwrap_or_default();
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&image.entrypoint);
        }
    }
    if config.entrypoint.as_deref().is_some_and(|list| list.len() == 1 && list[0].is_empty()) {
        config.entrypoint = None;
    }
}

/// The user's variables come first; the image's follow unless the user named them.
fn merge_environment(config: &mut Config, image: &[String]) {
    if image.is_empty() {
        return;
    }
    let env = config.env.get_or_insert_with(Vec::new);
    let own = env.len();
    for variable in image {
        let key = variable_name(variable);
        if !env[..own].iter().any(|set| variable_name(set) == key) {
            env.push(variable.clone());
        }
    }
}

fn variable_name(variable: &str) -> &str {
    variable.split('=').next().unwrap_or(variable)
}

fn merge_set<V: Clone>(own: &mut Option<BTreeMap<String, V>>, image: Option<&BTreeMap<String, V>>) {
    for (key, value) in image.into_iter().flatten() {
        own.get_or_insert_default().entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn merge_health(own: &mut Option<Healthcheck>, image: Option<&Healthcheck>) {
    let Some(image) = image else { return };
    let Some(own) = own else {
        *own = Some(image.clone());
        return;
    };
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test.clone_from(&image.test);
    }
    let pairs = [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ];
    for (own, image) in pairs {
        if *own == 0 {
            *own = image;
        }
    }
}

/// The program and its arguments, as inspect shows them and the runtime executes them.
pub(crate) fn command_line(config: &Config) -> Vec<String> {
    let entrypoint = config.entrypoint.iter().flatten();
    entrypoint.chain(config.cmd.iter().flatten()).cloned().collect()
}

/// The program's environment: Docker's defaults, what tells of links, then the container's own. A variable without `=`
/// removes the default of that name.
pub(crate) fn environment(config: &Config, hostname: &str, linked: Vec<String>) -> Vec<String> {
    let mut env = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={hostname}"),
    ];
    if config.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend(linked);
    replace_variables(&mut env, config.env.as_deref().unwrap_or_default());
    env
}

/// Sets each of `changes` in `env`, keeping the place of those that were there.
pub(crate) fn replace_variables(env: &mut Vec<String>, changes: &[String]) {
    for change in changes {
        let name = variable_name(change);
        let at = env.iter().position(|set| variable_name(set) == name);
        match (change.contains('='), at) {
            (true, Some(at)) => env[at] = change.clone(),
            (true, None) => env.push(change.clone()),
            (false, Some(at)) => drop(env.remove(at)),
            (false, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn check_command(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>, expect: &[&str]) {
        let image = RunConfig {
            entrypoint: Some(list(&["/entry"])),
            cmd: Some(list(&["image", "cmd"])),
            ..RunConfig::default()
        };
        let mut config =
            Config { entrypoint: entrypoint.map(list), cmd: cmd.map(list), ..Config::default() };
        merge_image(&mut config, &image);
        assert_eq!(command_line(&config), expect);
    }

    #[test]
    fn commands_merge_as_in_docker() {
        check_command(None, None, &["/entry", "image", "cmd"]);
        check_command(None, Some(&["x"]), &["/entry", "x"]);
        check_command(Some(&["e"]), None, &["e"]);
        check_command(Some(&["e"]), Some(&["x"]), &["e", "x"]);
        check_command(Some(&[]), None, &["image", "cmd"]);
        check_command(Some(&[""]), Some(&["x"]), &["x"]);
        check_command(Some(&[""]), None, &[]);
    }

    #[test]
    fn the_users_environment_wins() {
        let image = RunConfig { env: Some(list(&["PATH=/img", "A=0"])), ..RunConfig::default() };
        let mut config = Config { env: Some(list(&["A=1", "B", "A=2"])), ..Config::default() };
        merge_image(&mut config, &image);
        assert_eq!(config.env, Some(list(&["A=1", "B", "A=2", "PATH=/img"])));
        assert_eq!(
            environment(&config, "h", Vec::new()),
            list(&["PATH=/img", "HOSTNAME=h", "A=2"])
        );
        let unset = Config { env: Some(list(&["PATH"])), tty: true, ..Config::default() };
        assert_eq!(environment(&unset, "h", Vec::new()), list(&["HOSTNAME=h", "TERM=xterm"]));
    }

    #[test]
    fn health_checks_fill_their_gaps() {
        let image = RunConfig {
            healthcheck: Some(Healthcheck {
                test: Some(list(&["CMD", "true"])),
                interval: 5,
                retries: 2,
                ..Healthcheck::default()
            }),
            ..RunConfig::default()
        };
        let own = Healthcheck { interval: 7, ..Healthcheck::default() };
        let mut config = Config { healthcheck: Some(own), ..Config::default() };
        merge_image(&mut config, &image);
        let merged = config.healthcheck.unwrap();
        assert_eq!(
            (merged.test, merged.interval, merged.retries),
            (Some(list(&["CMD", "true"])), 7, 2)
        );
    }
}
