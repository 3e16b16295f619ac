//! What create refuses, in Docker's words, and what it warns of.

use api_types::host_config::{DeviceRequest, LogConfig, PortBinding};

use super::*;
use crate::support::{HOST_CONFIG_SUPPORT, Support};

fn sysinfo() -> SysInfo {
    SysInfo {
        memory_limit: true,
        swap_limit: true,
        memory_reservation: true,
        oom_kill_disable: true,
        swappiness: true,
        cpu_shares: true,
        cpu_cfs: true,
        cpuset: true,
        cpus: "0-1".to_owned(),
        mems: "0".to_owned(),
        pids_limit: true,
        ncpu: 2,
        ..SysInfo::default()
    }
}

fn check_both(config: Config, host_config: HostConfig) -> Result<Vec<String>> {
    let sysinfo = sysinfo();
    let context = Context { sysinfo: &sysinfo, runtimes: &|name| name == "runc" };
    check(&config, &host_config, &context)
}

fn command() -> Config {
    Config { cmd: Some(vec!["true".to_owned()]), ..Config::default() }
}

fn host_config(json: &str) -> HostConfig {
    let mut host_config: HostConfig = serde_json::from_str(json).unwrap();
    if host_config.log_config.kind.is_empty() {
        host_config.log_config.kind = "json-file".to_owned();
    }
    host_config
}

/// What create says to a `HostConfig`: its warnings, or the error.
fn check_host(json: &str, expect: &str) {
    let got = match check_both(command(), host_config(json)) {
        Ok(warnings) => warnings.join("|"),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, expect, "{json}");
}

#[test]
fn memory_is_checked_in_dockers_words() {
    check_host(r#"{"Memory":1}"#, "Minimum memory limit allowed is 6MB");
    check_host(r#"{"Memory":-1}"#, "Minimum memory limit allowed is 6MB");
    check_host(
        r#"{"Memory":10485760,"MemorySwap":5242880}"#,
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    );
    check_host(
        r#"{"MemorySwap":1073741824}"#,
        "You should always set the Memory limit when using Memoryswap limit, see usage",
    );
    check_host(
        r#"{"MemorySwappiness":200}"#,
        "Invalid value: 200, valid memory swappiness range is 0-100",
    );
    check_host(r#"{"MemorySwappiness":50}"#, "");
    check_host(r#"{"MemoryReservation":1}"#, "Minimum memory reservation allowed is 6MB");
    check_host(
        r#"{"MemoryReservation":20971520,"Memory":10485760}"#,
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    );
    check_host(
        r#"{"OomKillDisable":true}"#,
        "OOM killer is disabled for the container, but no memory limit is set, this can result in \
         the system running out of resources.",
    );
    check_host(r#"{"PidsLimit":-2}"#, "");
    check_host(r#"{"ShmSize":-1}"#, "SHM size can not be less than 0");
    check_host(
        r#"{"OomScoreAdj":2000}"#,
        "Invalid value 2000, range for oom score adj is [-1000, 1000]",
    );
}

#[test]
fn processors_are_checked_in_dockers_words() {
    let range = "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available";
    check_host(r#"{"NanoCpus":1000000000000}"#, range);
    check_host(r#"{"NanoCpus":-5}"#, range);
    check_host(
        r#"{"NanoCpus":1,"CpuPeriod":3}"#,
        "Conflicting options: Nano CPUs and CPU Period cannot both be set",
    );
    let period = "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. \
                  1000000)";
    check_host(r#"{"CpuPeriod":1}"#, period);
    check_host(r#"{"CpuPeriod":-1}"#, period);
    check_host(r#"{"CpuQuota":1}"#, "CPU cfs quota can not be less than 1ms (i.e. 1000)");
    check_host(r#"{"CpuQuota":-5}"#, "");
    check_host(r#"{"CpuShares":-5}"#, "invalid CPU shares (-5): value must be a positive integer");
    check_host(
        r#"{"CpusetCpus":"0-9223372036854775807"}"#,
        "Invalid value 0-9223372036854775807 for cpuset cpus: value of out range, maximum is 8192",
    );
    check_host(
        r#"{"CpusetCpus":"9"}"#,
        "Requested CPUs are not available - requested 9, available: 0-1",
    );
    check_host(r#"{"CpusetCpus":"x"}"#, "Invalid value x for cpuset cpus: invalid format: x");
    check_host(
        r#"{"CpusetMems":"7"}"#,
        "Requested memory nodes are not available - requested 7, available: 0",
    );
    check_host(r#"{"CpusetCpus":"0,1","CpusetMems":"0"}"#, "");
    check_host(r#"{"BlkioWeight":5}"#, "Range of blkio weight is from 10 to 1000");
    check_host(
        r#"{"BlkioWeight":500}"#,
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight \
         discarded.",
    );
}

#[test]
fn policies_are_checked_in_dockers_words() {
    check_host(
        r#"{"RestartPolicy":{"Name":"foo"}}"#,
        "invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', \
         or 'unless-stopped'",
    );
    let count = "invalid restart policy: maximum retry count can only be used with 'on-failure'";
    for name in ["always", "", "no"] {
        let json = format!(r#"{{"RestartPolicy":{{"Name":"{name}","MaximumRetryCount":3}}}}"#);
        check_host(&json, count);
    }
    check_host(
        r#"{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-3}}"#,
        "invalid restart policy: maximum retry count cannot be negative",
    );
    check_host(
        r#"{"RestartPolicy":{"Name":"always"},"AutoRemove":true}"#,
        "can't create 'AutoRemove' container with restart policy",
    );
    check_host(r#"{"CapAdd":["FOO"]}"#, "invalid CapAdd: unknown capability: \"CAP_FOO\"");
    check_host(r#"{"CapAdd":["sys_admin"],"CapDrop":["cap_chown","ALL"]}"#, "");
    check_host(
        r#"{"Annotations":{"":"x"}}"#,
        "invalid Annotations: the empty string is not permitted as an annotation key",
    );
    check_host(r#"{"Runtime":"nope"}"#, "unknown or invalid runtime name: nope");
    check_host(
        r#"{"Isolation":"hyperv"}"#,
        "invalid isolation (hyperv): linux only supports 'default'",
    );
    check_host(r#"{"Isolation":"default"}"#, "");
}

#[test]
fn modes_are_checked_in_dockers_words() {
    check_host(r#"{"PidMode":"foo"}"#, "invalid PID mode: foo");
    check_host(r#"{"PidMode":"container:"}"#, "invalid PID mode: container:");
    check_host(r#"{"IpcMode":"foo"}"#, "invalid IPC mode: foo");
    check_host(r#"{"UTSMode":"foo"}"#, "invalid UTS mode: foo");
    check_host(r#"{"CgroupnsMode":"foo"}"#, "invalid cgroup namespace mode: foo");
    check_host(
        r#"{"NetworkMode":"container:"}"#,
        "invalid network mode: invalid container format container:<name|id>",
    );
    check_host(
        r#"{"NetworkMode":"container:x","Dns":["1.1.1.1"]}"#,
        "conflicting options: dns and the network mode",
    );
    check_host(
        r#"{"NetworkMode":"container:x","PublishAllPorts":true}"#,
        "conflicting options: port publishing and the container type network mode",
    );
    check_host(
        r#"{"NetworkMode":"host","PortBindings":{"80":[{"HostPort":"8000"}]}}"#,
        "Published ports are discarded when using host network mode",
    );
    check_host(r#"{"IpcMode":"none"}"#, "");
}

#[test]
fn hosts_and_ports_are_checked_in_dockers_words() {
    check_host(r#"{"ExtraHosts":["foo"]}"#, "bad format for add-host: \"foo\"");
    check_host(r#"{"ExtraHosts":["foo:bar"]}"#, "invalid IP address in add-host: \"bar\"");
    check_host(r#"{"ExtraHosts":["foo:host-gateway","a=[::1]","b:1.2.3.4","c:::1"]}"#, "");
    check_host(
        r#"{"PortBindings":{"foo":[{"HostPort":"1"}]}}"#,
        "invalid port specification: \"foo\"",
    );
    check_host(
        r#"{"PortBindings":{"80/tcp":[{"HostPort":"70000"}]}}"#,
        "invalid port specification: \"70000\"",
    );
    check_host(
        r#"{"PortBindings":{"80-82/tcp":[{"HostPort":"1"}]}}"#,
        "invalid port specification: \"80-82\"",
    );
    check_host(
        r#"{"PortBindings":{"80/tcp":[{"HostPort":"-1"}]}}"#,
        "invalid port specification: \"-1\"",
    );
    check_host(r#"{"PortBindings":{"80/tcp":[{"HostPort":"8000-8001"}],"81":null}}"#, "");
}

#[test]
fn log_options_are_checked_in_dockers_words() {
    let log = |kind: &str, options: &str| {
        format!(r#"{{"LogConfig":{{"Type":"{kind}","Config":{options}}}}}"#)
    };
    check_host(&log("foo", "{}"), "error looking up logging plugin foo: plugin \"foo\" not found");
    check_host(
        &log("json-file", r#"{"foo":"1"}"#),
        "unknown log opt 'foo' for json-file log driver",
    );
    let value = |reason: &str| format!("failed to initialize logging driver: {reason}");
    check_host(&log("json-file", r#"{"max-size":"x"}"#), &value("invalid size: 'x'"));
    check_host(&log("json-file", r#"{"max-file":"0"}"#), &value("max-file cannot be less than 1"));
    check_host(
        &log("json-file", r#"{"compress":"x"}"#),
        &value("strconv.ParseBool: parsing \"x\": invalid syntax"),
    );
    check_host(&log("json-file", r#"{"mode":"foo"}"#), "logger: logging mode not supported: foo");
    check_host(
        &log("json-file", r#"{"max-buffer-size":"1m"}"#),
        "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
    );
    check_host(&log("json-file", r#"{"max-file":"3","max-size":"-1"}"#), "");
    check_host(&log("none", r#"{"max-size":"1m"}"#), "");
    check_host(&log("syslog", "{}"), "the syslog log driver is not supported yet");
}

#[test]
fn logs_are_capped_unless_told_otherwise() {
    let options = |kind: &str, options: &[(&str, &str)]| {
        let config = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let config = LogConfig { kind: kind.to_owned(), config: config.collect() };
        let options = logging::options(&config).unwrap();
        (options.max_size, options.max_files, options.compress)
    };
    assert_eq!(options("json-file", &[]), (Some(20 << 20), 5, false));
    assert_eq!(options("local", &[]), (Some(20 << 20), 5, true));
    assert_eq!(options("json-file", &[("max-size", "-1")]), (None, 5, false));
    assert_eq!(options("json-file", &[("max-size", "1m")]), (Some(1 << 20), 5, false));
}

fn check_config(change: impl FnOnce(&mut Config), expect: &str) {
    let mut config = command();
    change(&mut config);
    let got = match check_both(config, host_config("{}")) {
        Ok(warnings) => warnings.join("|"),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, expect);
}

#[test]
fn configs_are_checked_in_dockers_words() {
    let env = |variable: &str| vec![variable.to_owned()];
    check_config(|config| config.env = Some(env("=x")), "invalid environment variable: =x");
    check_config(|config| config.env = Some(env("")), "invalid environment variable: ");
    check_config(|config| config.env = Some(env("FOO")), "");
    check_config(
        |config| config.working_dir = "rel".to_owned(),
        "the working directory 'rel' is invalid, it needs to be an absolute path",
    );
    check_config(|config| config.stop_signal = "SIGFOO".to_owned(), "invalid signal: SIGFOO");
    check_config(|config| config.stop_signal = "RTMIN+3".to_owned(), "");
    check_config(|config| config.cmd = None, "no command specified");
    let health = |json: &'static str| {
        move |config: &mut Config| config.healthcheck = serde_json::from_str(json).unwrap()
    };
    check_config(health(r#"{"Interval":1}"#), "Interval in Healthcheck cannot be less than 1ms");
    check_config(health(r#"{"Interval":-1}"#), "Interval in Healthcheck cannot be less than 1ms");
    check_config(health(r#"{"Timeout":5}"#), "Timeout in Healthcheck cannot be less than 1ms");
    check_config(health(r#"{"Retries":-1}"#), "Retries in Healthcheck cannot be negative");
    check_config(
        health(r#"{"StartInterval":3}"#),
        "StartInterval in Healthcheck cannot be less than 1ms",
    );
}

#[test]
fn a_million_variables_are_refused_at_once() {
    let config = Config { env: Some(vec!["A=b".to_owned(); 1_000_000]), ..command() };
    let error = check_both(config, host_config("{}")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "arguments and environment take 12000013 bytes, more than 2097152"
    );
}

/// One value for each field that is refused.
fn refused(field: &str) -> HostConfig {
    let mut config = host_config("{}");
    let resources = &mut config.resources;
    match field {
        "DeviceRequests" => resources.device_requests = Some(vec![DeviceRequest::default()]),
        "CpuCount" => resources.cpu_count = 1,
        "CpuPercent" => resources.cpu_percent = 1,
        "IOMaximumIOps" => resources.io_maximum_iops = 1,
        "IOMaximumBandwidth" => resources.io_maximum_bandwidth = 1,
        "Cgroup" => config.cgroup = "container:x".to_owned(),
        "StorageOpt" => {
            config.storage_opt = Some([("size".to_owned(), "1G".to_owned())].into());
        }
        field => panic!("no value for the refused field {field}"),
    }
    config
}

#[test]
fn refused_fields_answer_an_error_that_names_them() {
    use spec::{ErrorKind, Kinded};
    for (field, support, _) in HOST_CONFIG_SUPPORT {
        if *support == Support::Refused {
            let error = check_both(command(), refused(field)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotImplemented, "{field}");
            assert!(error.to_string().contains(field), "{field}: {error}");
        }
    }
}

#[test]
fn the_table_names_every_field() {
    let everything = HostConfig {
        port_bindings: Some([("80".to_owned(), Some(vec![PortBinding::default()]))].into()),
        annotations: Some(Default::default()),
        storage_opt: Some(Default::default()),
        tmpfs: Some(Default::default()),
        sysctls: Some(Default::default()),
        runtime: "runc".to_owned(),
        mounts: Some(Vec::new()),
        init: Some(true),
        ..HostConfig::default()
    };
    let json = serde_json::to_value(&everything).unwrap();
    let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    let named = |field: &String| HOST_CONFIG_SUPPORT.iter().any(|(name, _, _)| name == field);
    let unnamed: Vec<_> = fields.iter().filter(|field| !named(field)).collect();
    assert_eq!(unnamed, Vec::<&String>::new());
    assert_eq!(HOST_CONFIG_SUPPORT.len(), 69);
    assert_eq!(crate::support::CONFIG_SUPPORT.len(), 24);
}
