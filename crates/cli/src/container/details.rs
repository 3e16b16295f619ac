//! Small questions and changes: port, top, diff, update.

use api_types::container::{Change, Inspect, TopResponse, UpdateRequest, UpdateResponse};
use api_types::host_config::PortBinding;
use client::Request;

use super::ports::join;
use crate::app::{App, container_path};
use crate::failure::{Failure, Outcome};
use crate::flags::{Parsed, parse_uint};
use crate::output::{self, layout_with};
use crate::run::{restart_policy, update_resources};

/// `docker port`.
pub(crate) async fn port(app: &App, flags: &Parsed) -> Outcome {
    let name = &flags.args[0];
    let container: Inspect = app.get(container_path(name, "/json")).await?;
    let ports = container.network_settings.ports;
    let shown = |binding: &PortBinding| join(&binding.host_ip, &binding.host_port);
    let mut lines = Vec::new();
    if let Some(wanted) = flags.args.get(1) {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        parse_uint(number, 16)
            .map_err(|reason| Failure::new(format!("Error: invalid port ({number}): {reason}")))?;
        let Some(Some(bindings)) = ports.get(&format!("{number}/{protocol}")) else {
            return Err(Failure::new(format!(
                "Error: No public port '{wanted}' published for {name}"
            )));
        };
        lines.extend(bindings.iter().map(shown));
    } else {
        for (port, bindings) in &ports {
            let bindings = bindings.iter().flatten();
            lines.extend(bindings.map(|binding| format!("{port} -> {}", shown(binding))));
        }
    }
    lines.sort_by_key(|line| natural(line));
    output::print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(0)
}

/// Orders `9/tcp` before `80/tcp`: numbers in a text compare as numbers.
fn natural(text: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        key.push((number.parse().unwrap_or(0), after[..letters].to_owned()));
        rest = &after[letters..];
    }
    key
}

/// `docker top`; docker's columns are 20 wide here.
pub(crate) async fn top(app: &App, flags: &Parsed) -> Outcome {
    let arguments = flags.args[1..].join(" ");
    let request = Request::get(container_path(&flags.args[0], "/top")).query_if(
        !arguments.is_empty(),
        "ps_args",
        &arguments,
    );
    let top: TopResponse = app.client.get(request).await?;
    let mut text = top.titles.join("\t") + "\n";
    for process in &top.processes {
        text.push_str(&process.join("\t"));
        text.push('\n');
    }
    output::print(&layout_with(&text, 20, 3))?;
    Ok(0)
}

/// `docker diff`.
pub(crate) async fn diff(app: &App, flags: &Parsed) -> Outcome {
    let name = &flags.args[0];
    if name.is_empty() {
        return Err(Failure::new("Container name cannot be empty"));
    }
    let changes: Option<Vec<Change>> = app.get(container_path(name, "/changes")).await?;
    let mut text = String::new();
    for change in changes.unwrap_or_default() {
        let kind = match change.kind {
            0 => "C",
            1 => "A",
            _ => "D",
        };
        text.push_str(&format!("{kind} {}\n", change.path));
    }
    output::print(&text)?;
    Ok(0)
}

/// `docker update`.
pub(crate) async fn update(app: &App, flags: &Parsed) -> Outcome {
    if !flags.any_changed() {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    let mut resources = update_resources(flags)?;
    resources.pids_limit = flags.changed("pids-limit").then(|| flags.int("pids-limit"));
    let request =
        UpdateRequest { resources, restart_policy: restart_policy(flags.text("restart"))? };
    let mut warnings = Vec::new();
    let mut failures = Vec::new();
    for name in &flags.args {
        let path = container_path(name, "/update");
        match app.client.post::<_, UpdateResponse>(Request::post(path), &request).await {
            Ok(answer) => {
                output::print_line(name)?;
                warnings.extend(answer.warnings.unwrap_or_default());
            }
            Err(error) => failures.push(Failure::Client(error)),
        }
    }
    if !warnings.is_empty() {
        output::print_line(&warnings.join("\n"))?;
    }
    Failure::all(&failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_ordered_by_number() {
        let mut lines = ["443/tcp -> b", "80/tcp -> a:10", "80/tcp -> a:9", "9/udp -> c"];
        lines.sort_by_key(|line| natural(line));
        assert_eq!(lines, ["9/udp -> c", "80/tcp -> a:9", "80/tcp -> a:10", "443/tcp -> b"]);
    }
}
