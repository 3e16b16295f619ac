//! What scripts do with `docker`, done with our binary under that name, and no other `docker` in
//! PATH. Each case is a script and what it prints.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use testkit::{Daemon, Output};

use crate::{BINARY, daemon, run_detached};

/// A directory whose `docker` is ours; it comes first in the PATH of scripts.
pub(crate) fn linked(daemon: &Daemon) -> std::path::PathBuf {
    let directory = daemon.root().join("bin");
    std::fs::create_dir_all(&directory).unwrap();
    let link = directory.join("docker");
    if !link.exists() {
        symlink(BINARY, &link).unwrap();
    }
    directory
}

pub(crate) fn executable(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn script(daemon: &Daemon, text: &str) -> Output {
    let work = daemon.root().join("work");
    std::fs::create_dir_all(&work).unwrap();
    let mut command = daemon.client_command("bash");
    let path = format!("{}:/usr/bin:/bin", linked(daemon).display());
    command.args(["-c", text]).env("PATH", path).current_dir(work);
    testkit::run::run(&mut command, b"")
}

#[track_caller]
fn check(daemon: &Daemon, text: &str, expect: &str) {
    let output = script(daemon, text);
    assert_eq!(output.stdout.trim_end(), expect, "{text}\n{}", output.stderr);
}

#[test]
fn names_ids_and_loops() {
    let daemon = daemon();
    let check = |text: &str, expect: &str| check(&daemon, text, expect);
    check("docker --version | grep -c '^Docker version '", "1");
    check("set -euo pipefail; docker info >/dev/null && echo up", "up");
    check(
        "for i in 1 2 3; do docker run -d --name n$i -l t=x busybox sleep 1000 >/dev/null; done; docker ps -q | wc -l",
        "3",
    );
    check("docker ps -aq --filter name=n1 | xargs docker rm -f | wc -l", "1");
    check("docker ps -aq | xargs docker rm -f >/dev/null; docker ps -aq | wc -l", "0");
    check(
        "docker rm -f $(docker ps -aq) 2>&1 | head -1",
        "docker: 'docker rm' requires at least 1 argument",
    );
    check("docker ps -aq | xargs -r docker rm -f", "");
    check("docker rm -f nosuch >/dev/null 2>&1 || true; echo $?", "0");
    check("docker inspect nosuch >/dev/null 2>&1 || echo absent", "absent");
    check("id=$(docker run -d busybox sleep 1000); docker rm -f $id >/dev/null; echo ${#id}", "64");
    check(
        "docker run -d --name web --label role=web busybox sleep 1000 >/dev/null; docker ps --filter label=role=web --format '{{.Names}}'",
        "web",
    );
    check("if [ \"$(docker ps -q -f name=^web$)\" ]; then echo running; fi", "running");
    check("[ \"$(docker inspect -f '{{.State.Running}}' web)\" = true ] && echo yes", "yes");
    check("docker ps --format '{{.Names}}' | grep -qx web && echo found", "found");
    check("docker ps --format 'table {{.Names}}\\t{{.Image}}' | awk 'NR>1 {print $2}'", "busybox");
    check("docker ps --no-trunc --format '{{json .}}' | grep -c '\"Names\":\"web\"'", "1");
    check("docker stop -t 0 web | xargs docker start | xargs docker rm -f", "web");
    check(
        "docker run --name job busybox sh -c 'exit 3'; echo $?; docker wait job; docker rm job",
        "3\n3\njob",
    );
    check("docker image inspect busybox >/dev/null 2>&1 && echo have", "have");
    check(
        "docker images -q busybox | wc -l; docker images --format '{{.Repository}}:{{.Tag}}' | sort | head -1",
        "1\nbusybox:latest",
    );
    check("docker tag busybox app:$(echo 1.0) && docker rmi app:1.0 | grep -c Untagged", "1");
    daemon.finish();
}

#[test]
fn inspect_templates_of_scripts() {
    let daemon = daemon();
    run_detached(&daemon, "db", "sleep 1000");
    let check = |text: &str, expect: &str| check(&daemon, text, expect);
    check(
        "docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' db | grep -cE '^[0-9.]+$'",
        "1",
    );
    check(
        "docker inspect --format='{{range $p, $conf := .NetworkSettings.Ports}}{{$p}} {{end}}' db",
        "",
    );
    check("docker inspect -f '{{range .Mounts}}{{.Source}}{{end}}' db", "");
    check("docker inspect -f '{{json .Config.Cmd}}' db", r#"["sh","-c","sleep 1000"]"#);
    check("docker inspect -f '{{index .Config.Labels \"nope\"}}' db", "");
    check("docker inspect -f '{{.Name}}' db | cut -c2-", "db");
    check(
        "docker inspect -f '{{if .State.Running}}up{{else}}down{{end}} {{len .Mounts}}' db",
        "up 0",
    );
    check(
        "docker inspect db | python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"State\"][\"Status\"])'",
        "running",
    );
    check("docker inspect -f '{{printf \"%s-%d\" .Config.Image .State.ExitCode}}' db", "busybox-0");
    check(
        "docker inspect -f '{{.HostConfig.NetworkMode}} {{join .Config.Cmd \" \"}}' db",
        "bridge sh -c sleep 1000",
    );
    check("docker port db || echo none", "");
    check("docker network inspect bridge -f '{{(index .IPAM.Config 0).Subnet}}' | grep -c /", "1");
    check("docker info --format '{{.OSType}}/{{.Driver}}' | cut -d/ -f1", "linux");
    check("docker version -f '{{.Server.Version}}' | grep -cE '^[0-9]+\\.'", "1");
    check(
        "docker volume create v1; docker volume inspect -f '{{.Mountpoint}}' v1 | xargs basename; docker volume ls -qf dangling=true",
        "v1\n_data\nv1",
    );
    check("docker top db -o pid,args | awk 'NR>1 {print $2, $3}'", "sleep 1000");
    daemon.finish();
}

#[test]
fn streams_in_and_out() {
    let daemon = daemon();
    run_detached(&daemon, "db", "sleep 1000");
    let check = |text: &str, expect: &str| check(&daemon, text, expect);
    check("echo 'echo from dump' > dump; docker exec -i db sh < dump", "from dump");
    check(
        "mkdir -p d && echo x > d/f && tar c -C d . | docker cp - db:/tmp && docker exec db cat /tmp/f",
        "x",
    );
    check("docker cp db:/tmp/f - | tar xO", "x");
    check("docker cp d/f db:/tmp/g && docker cp db:/tmp/g out && cat out", "x");
    check("docker run --rm -i busybox tr a-z A-Z <<< words | rev", "SDROW");
    check("printf 'b\\na\\n' | docker run --rm -i busybox sort | tr '\\n' ,", "a,b,");
    check("docker run --rm busybox cat /etc/passwd | cut -d: -f1 | head -1", "root");
    check(
        "docker run --rm -v \"$PWD:/w\" -w /w busybox sh -c 'echo made > made'; cat made",
        "made",
    );
    check("docker run --rm -e A -e B=2 --env-file <(echo C=3) busybox sh -c 'echo $A$B$C'", "23");
    check("A=1 docker run --rm -e A busybox sh -c 'echo $A'", "1");
    check("docker run --rm -u $(id -u):$(id -g) busybox id -u", "0");
    check("docker exec db sh -c 'exit 7' || echo $?", "7");
    check("docker exec db nosuch >/dev/null 2>&1; echo $?", "127");
    check("docker run --rm busybox nosuch >/dev/null 2>&1; echo $?", "127");
    check("docker run --rm --nosuch busybox >/dev/null 2>&1; echo $?", "125");
    check("docker export db | tar t | grep -cx bin/busybox", "1");
    check("docker save busybox | docker load", "Loaded image: busybox:latest");
    check(
        "docker save busybox | gzip > b.tgz && docker load -i b.tgz -q",
        "Loaded image: busybox:latest",
    );
    check(
        "docker export db | docker import - flat:1 >/dev/null && docker run --rm flat:1 echo flat",
        "flat",
    );
    check("docker commit db snap:1 >/dev/null && docker run --rm snap:1 cat /tmp/f", "x");
    check(
        "docker run -d --cidfile cid busybox sleep 1000 >/dev/null; docker kill $(cat cid) | wc -c; rm cid",
        "65",
    );
    check(
        "trap 'docker rm -f tmp >/dev/null' EXIT; docker run -d --name tmp busybox sleep 1000 >/dev/null; echo working",
        "working",
    );
    check("docker ps -aq -f name=tmp", "");
    check("timeout 20 sh -c 'until docker exec db true; do sleep 1; done' && echo ready", "ready");
    check(
        "docker create --name made busybox echo hi >/dev/null; docker start -a made; docker rm made",
        "hi\nmade",
    );
    check("for v in a b; do docker run --rm busybox echo $v & done | sort; wait", "a\nb");
    daemon.finish();
}

#[test]
fn logs_and_waiting() {
    let daemon = daemon();
    let script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; sleep 1000";
    run_detached(&daemon, "web", script);
    let check = |text: &str, expect: &str| check(&daemon, text, expect);
    check("docker logs -f --since 1m web | head -2", "line 1\nline 2");
    check("timeout 30 docker logs -f web | grep -m1 'line 2000'", "line 2000");
    check("docker logs --tail 1 web", "line 2000");
    check("docker logs web 2>&1 | wc -l", "2000");
    check("docker logs -t web | head -1 | cut -d' ' -f2-", "line 1");
    check(
        "docker events --since 10m --until 0s --filter event=start --format '{{.Actor.Attributes.name}}'",
        "web",
    );
    check("timeout 1 docker logs -f --tail 0 web; echo $?", "124");
    check("(sleep 0.3; docker stop -t 0 web >/dev/null) & docker wait web; wait", "137");
    check(
        "docker run -d --name hc --health-cmd true --health-interval 100ms busybox sleep 1000 >/dev/null; until [ \"$(docker inspect -f '{{.State.Health.Status}}' hc)\" = healthy ]; do sleep 0.05; done; echo healthy",
        "healthy",
    );
    check("docker stats --no-stream --format '{{.Name}}' hc", "hc");
    check("docker system df --format '{{.Type}}' | head -1", "Images");
    daemon.finish();
}

/// A reader that goes away ends us as it ends docker: at once, without a word.
#[test]
fn a_broken_pipe_ends_quietly() {
    let daemon = daemon();
    run_detached(&daemon, "c1", "yes");
    let cases = [
        "logs -f c1",
        "exec c1 yes",
        "run --rm busybox yes",
        "export c1",
        "save busybox",
        "cp c1:/ -",
    ];
    for case in cases {
        for program in ["docker", BINARY] {
            let text = format!("{program} {case} | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}");
            let mut command = daemon.client_command("bash");
            let output = testkit::run::run(command.args(["-c", &text]), b"");
            assert!(!output.stderr.contains("panic"), "{text}: {}", output.stderr);
            if program == BINARY {
                assert_eq!(output.stderr, "", "{text}");
                assert_eq!(output.stdout.trim(), "141", "{text}");
            }
        }
    }
    daemon.finish();
}

/// `ssh://`, with a script in place of ssh that runs what the other machine would.
#[test]
fn daemons_behind_ssh() {
    let daemon = daemon();
    let bin = linked(&daemon);
    let text = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\n\
                [ \"$2\" = gone ] && { echo 'ssh: no route' >&2; exit 255; }\nshift 2\n\
                exec env DOCKER_HOST=\"$REMOTE\" sh -c \"$*\"\n";
    executable(&bin.join("ssh"), text);
    let host = daemon.host();
    let check = |text: &str, expect: &str| {
        check(&daemon, &format!("export REMOTE={host} DOCKER_HOST=ssh://me@there; {text}"), expect);
    };
    check("docker run --rm busybox echo over ssh", "over ssh");
    check("head -c 1000000 /dev/zero | docker run --rm -i busybox wc -c", "1000000");
    check("docker save busybox | docker load -q", "Loaded image: busybox:latest");
    check("docker run --rm -i busybox sh -c 'exit 5'; echo $?", "5");
    check(
        &format!("docker -H ssh://there{} ps -q | wc -l", host.strip_prefix("unix://").unwrap()),
        "0",
    );
    check(
        "docker context create far --docker host=ssh://there >/dev/null 2>&1; docker -c far images -q | wc -l",
        "1",
    );
    check(
        "docker -H ssh://gone ps 2>&1 | grep -o 'exit status 255.*' | tr '\\n' ' '",
        "exit status 255, make sure the URL is valid, and Docker 18.09 or later is installed on \
         the remote host: stderr=ssh: no route",
    );
    daemon.finish();
}

/// Docker's Compose does not mind who is called `docker`.
#[test]
fn compose_is_not_affected() {
    let compose = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path).map(|place| place.join("docker-compose")).collect::<Vec<_>>()
    });
    let lab = std::env::home_dir().unwrap_or_default().join("lab/bin/docker-compose");
    let Some(compose) = compose.chain([lab]).find(|file| file.is_file()) else {
        return skipped("there is no docker-compose");
    };
    let daemon = daemon();
    let project = daemon.root().join("project");
    std::fs::create_dir_all(&project).unwrap();
    let file = "services:\n  one:\n    image: busybox\n    command: sleep 1000\n";
    std::fs::write(project.join("compose.yaml"), file).unwrap();
    let run = |args: &[&str]| {
        let mut command: Command = daemon.client_command(&compose.to_string_lossy());
        let path = format!("{}:/usr/bin:/bin", linked(&daemon).display());
        testkit::run::run(command.args(args).env("PATH", path).current_dir(&project), b"")
    };
    run(&["up", "-d"]).ok();
    assert_eq!(run(&["ps", "--services"]).ok(), "one");
    assert_eq!(run(&["exec", "-T", "one", "echo", "hi"]).ok(), "hi");
    check(&daemon, "docker ps --format '{{.Names}}'", "project-one-1");
    check(&daemon, "docker ps -q --filter label=com.docker.compose.project=project | wc -l", "1");
    run(&["down", "-t", "0"]).ok();
    check(&daemon, "docker ps -aq", "");
    daemon.finish();
}

#[allow(clippy::print_stderr, reason = "whoever reads the log is to know")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
