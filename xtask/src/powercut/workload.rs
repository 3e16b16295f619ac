//! What a daemon is asked to do while its disk is recorded: two clients at once, each with objects
//! of its own on layers that they share.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::image::{Builder, Tar, sha256};
use testkit::{Response, Socket};

use super::history::{Change, Key, Marks, look};
use super::log::Random;

/// The exit code of a container that found its files whole.
pub(super) const WHOLE: i64 = 9;

/// What containers run: `/sums` has the digests of all files that its image should have.
fn command() -> Value {
    let script = format!("/bin/busybox sha256sum -c -s /sums && exit {WHOLE}");
    json!(["/bin/busybox", "sh", "-c", script])
}

type Headers<'a> = &'a [(&'a str, &'a str)];
const TAR: Headers<'static> = &[("Content-Type", "application/x-tar")];

/// One client.
#[derive(Debug)]
pub(super) struct Client<'a> {
    name: char,
    socket: PathBuf,
    data_root: PathBuf,
    marks: &'a Marks,
    random: Random,
    busybox: &'a [u8],
    made: usize,
    images: Vec<String>,
    containers: Vec<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
    changes: Vec<Change>,
}

impl<'a> Client<'a> {
    pub(super) fn new(
        name: char,
        daemon: &testkit::Daemon,
        marks: &'a Marks,
        seed: u64,
        busybox: &'a [u8],
    ) -> Self {
        Self {
            name,
            socket: daemon.socket_path(),
            data_root: daemon.visible_data_root(),
            marks,
            random: Random(seed ^ u64::from(name)),
            busybox,
            made: 0,
            images: Vec::new(),
            containers: Vec::new(),
            volumes: Vec::new(),
            networks: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Panics when the daemon refuses something.
    pub(super) fn work(mut self, steps: usize) -> Vec<Change> {
        self.load();
        self.create(false);
        for _ in 0..steps {
            self.step();
        }
        self.changes
    }

    fn step(&mut self) {
        match self.random.below(21) {
            0..=2 => self.load(),
            3 => self.import(),
            4 | 5 => self.commit(),
            6 => self.tag(),
            7 | 8 => self.remove_image(),
            9 => self.create_volume(),
            10 | 11 => self.write_file(),
            12 => self.remove_volume(),
            13 => self.create(false),
            14 => self.create(true),
            15 | 16 => self.run(),
            17 => self.change_container(),
            18 => self.remove_container(),
            19 => self.create_network(),
            _ => self.change_network(),
        }
    }

    /// Does something between two marks and writes down what became of the keys.
    fn record(&mut self, keys: Vec<Key>, work: impl FnOnce(&mut Self)) {
        let begun = self.marks.write().expect("the disk is writable");
        work(self);
        let acknowledged = self.marks.write().expect("the disk is writable");
        for key in keys {
            let now = look(&self.socket, &self.data_root, &key);
            self.changes.push(Change { key, now, begun, acknowledged });
        }
    }

    fn request(&self, method: &str, path: &str, headers: Headers<'_>, body: &[u8]) -> Response {
        let answer = Socket::connect(&self.socket)
            .and_then(|mut api| api.request(method, path, headers, body))
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let fine = answer.status < 400 && !answer.text().contains("errorDetail");
        assert!(fine, "{method} {path}: {} {}", answer.status, answer.text());
        answer
    }

    fn post(&self, path: &str, body: &Value) -> Response {
        let json = [("Content-Type", "application/json")];
        self.request("POST", path, &json, body.to_string().as_bytes())
    }

    fn delete(&self, path: &str) {
        self.request("DELETE", path, &[], b"");
    }

    fn new_name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{}-{kind}{}", self.name, self.made)
    }

    fn pick(&mut self, from: fn(&Self) -> &Vec<String>) -> Option<String> {
        match from(self).len() {
            0 => None,
            count => {
                let index = self.random.below(count);
                Some(from(self)[index].clone())
            }
        }
    }

    // Images.

    /// A layer of files that both clients have, or of this one's own; its digests go to `sums`.
    fn files(&mut self, name: &str, sums: &mut String, mut random: Random) -> Tar {
        let mut tar = Tar::default();
        tar.directory(name);
        for number in 0..4 + random.below(12) {
            let path = format!("{name}/{number}");
            let byte = random.next().to_le_bytes();
            let content = byte.repeat(random.below(5_000));
            tar.file(&path, 0o644, &content);
            sums.push_str(&format!("{}  /{path}\n", sha256(&content)));
        }
        tar.symlink(&format!("{name}/link"), "0")
            .hardlink(&format!("{name}/hard"), &format!("{name}/1"));
        tar
    }

    fn load(&mut self) {
        let name = self.new_name("load");
        let (mut image, mut sums) = (Builder::busybox(&format!("{name}:latest")), String::new());
        for shared in 0..3 {
            if self.random.percent(60) {
                let tar =
                    self.files(&format!("shared{shared}"), &mut sums, Random(shared)).finish();
                image = image.layer(tar);
            }
        }
        let own = self.own_files(&mut sums);
        image = image.layer(own);
        let archive = if self.random.percent(50) { image.oci_layout() } else { image.archive() };
        self.record(vec![Key::Image(name.clone())], |client| {
            client.request("POST", "/images/load?quiet=1", TAR, &archive);
        });
        self.images.push(name);
    }

    /// The layer that ends an image: what its volume begins with, and the sums.
    fn own_files(&mut self, sums: &mut String) -> Vec<u8> {
        let random = Random(self.random.next());
        let mut own = self.files("own", sums, random);
        own.directory("data").file("data/seed", 0o600, sums.as_bytes());
        own.file("sums", 0o644, sums.as_bytes()).finish()
    }

    fn import(&mut self) {
        let name = self.new_name("import");
        let mut sums = String::new();
        let mut tar = Tar::default();
        // Two archives make one when the first has no end.
        let own = self.own_files(&mut sums);
        let program = tar.directory("bin").file("bin/busybox", 0o755, self.busybox).finish();
        let archive = [&program[..program.len() - 1024], &own].concat();
        self.record(vec![Key::Image(name.clone())], |client| {
            let path = format!("/images/create?fromSrc=-&repo={name}&tag=latest");
            client.request("POST", &path, TAR, &archive);
        });
        self.images.push(name);
    }

    fn commit(&mut self) {
        let Some(container) = self.pick(|client| &client.containers) else { return };
        let of = self.request("GET", &format!("/containers/{container}/json"), &[], b"").json();
        let image = Key::Image(of["Image"].as_str().unwrap_or_default().to_owned());
        if look(&self.socket, &self.data_root, &image).is_null() {
            // Removed by force; nothing can be committed on top of it.
            return;
        }
        let name = self.new_name("commit");
        let mut changed = Tar::default();
        for number in 0..1 + self.random.below(8) {
            let content = vec![self.random.next().to_le_bytes()[0]; self.random.below(30_000)];
            changed.file(&format!("changed-{name}-{number}"), 0o644, &content);
        }
        let path = format!("/containers/{container}/archive?path=/");
        self.request("PUT", &path, TAR, &changed.finish());
        self.record(vec![Key::Image(name.clone())], |client| {
            client.post(&format!("/commit?container={container}&repo={name}"), &json!({}));
        });
        self.images.push(name);
    }

    fn tag(&mut self) {
        let Some(image) = self.pick(|client| &client.images) else { return };
        let name = self.new_name("tag");
        self.record(vec![Key::Image(name.clone())], |client| {
            let path = format!("/images/{image}/tag?repo={name}&tag=latest");
            client.request("POST", &path, &[], b"");
        });
        self.images.push(name);
    }

    fn remove_image(&mut self) {
        if self.images.len() < 3 {
            return;
        }
        let index = self.random.below(self.images.len());
        let name = self.images.remove(index);
        self.record(vec![Key::Image(name.clone())], |client| {
            client.delete(&format!("/images/{name}?force=1"));
        });
    }

    // Volumes.

    fn create_volume(&mut self) {
        let name = self.new_name("volume");
        self.record(vec![Key::Volume(name.clone())], |client| {
            client.post("/volumes/create", &json!({"Name": name, "Labels": {"of": "powercut"}}));
        });
        self.volumes.push(name);
    }

    /// As a program in a container would that wants its data kept.
    fn write_file(&mut self) {
        let Some(volume) = self.pick(|client| &client.volumes) else { return };
        let name = format!("file{}", self.random.below(4));
        let content = vec![self.random.next().to_le_bytes()[0]; self.random.below(60_000)];
        let data = self.data_root.join("volumes").join(&volume).join("_data");
        self.record(vec![Key::File(volume, name.clone())], |_| {
            std::fs::write(data.join(&name), content).expect("a volume is writable");
            for path in [data.join(&name), data] {
                let file = std::fs::File::open(path).and_then(|file| file.sync_all());
                file.expect("a volume can be synced");
            }
        });
    }

    fn remove_volume(&mut self) {
        let Some(name) = self.pick(|client| &client.volumes) else { return };
        let used = self.changes.iter().any(|change| {
            matches!(&change.key, Key::Container(_)) && change.now.to_string().contains(&name)
        });
        if used {
            return;
        }
        self.volumes.retain(|volume| *volume != name);
        let mut keys = vec![Key::Volume(name.clone())];
        keys.extend((0..4).map(|number| Key::File(name.clone(), format!("file{number}"))));
        self.record(keys, |client| client.delete(&format!("/volumes/{name}")));
    }

    // Containers.

    fn create(&mut self, with_volume: bool) {
        let Some(image) = self.pick(|client| &client.images) else { return };
        let name = self.new_name("container");
        let mut keys = vec![Key::Container(name.clone()), Key::Exit(name.clone())];
        let mut binds = Vec::new();
        if with_volume {
            let volume = self.new_name("data");
            keys.push(Key::Volume(volume.clone()));
            // Comes out of the image.
            keys.push(Key::File(volume.clone(), "seed".to_owned()));
            binds.push(format!("{volume}:/data"));
            self.volumes.push(volume);
        }
        let body = json!({
            "Image": image, "Cmd": command(), "Volumes": {"/anonymous": {}},
            "HostConfig": {"NetworkMode": "none", "Binds": binds},
        });
        self.record(keys, |client| {
            client.post(&format!("/containers/create?name={name}"), &body);
        });
        self.containers.push(name);
    }

    fn run(&mut self) {
        let Some(name) = self.pick(|client| &client.containers) else { return };
        self.record(vec![Key::Exit(name.clone())], |client| {
            client.request("POST", &format!("/containers/{name}/start"), &[], b"");
            let path = format!("/containers/{name}/wait");
            let ended = client.request("POST", &path, &[], b"").json();
            assert_eq!(ended["StatusCode"], WHOLE, "{name} found its files changed");
        });
    }

    fn change_container(&mut self) {
        if self.containers.is_empty() {
            return;
        }
        let index = self.random.below(self.containers.len());
        let old = self.containers[index].clone();
        if self.random.percent(50) {
            let limit = 100 + self.random.below(100);
            self.record(vec![Key::Container(old.clone())], |client| {
                client.post(&format!("/containers/{old}/update"), &json!({"PidsLimit": limit}));
            });
            return;
        }
        let new = self.new_name("renamed");
        let names = [old.clone(), new.clone()].into_iter();
        let keys = names.flat_map(|name| [Key::Container(name.clone()), Key::Exit(name)]).collect();
        self.record(keys, |client| {
            let path = format!("/containers/{old}/rename?name={new}");
            client.request("POST", &path, &[], b"");
        });
        self.containers[index] = new;
    }

    fn remove_container(&mut self) {
        if self.containers.len() < 2 {
            return;
        }
        let index = self.random.below(self.containers.len());
        let name = self.containers.remove(index);
        self.record(vec![Key::Container(name.clone()), Key::Exit(name.clone())], |client| {
            client.delete(&format!("/containers/{name}?v=1"));
        });
    }

    // Networks.

    fn create_network(&mut self) {
        let name = self.new_name("network");
        self.record(vec![Key::Network(name.clone())], |client| {
            client.post("/networks/create", &json!({"Name": name, "Labels": {"of": "powercut"}}));
        });
        self.networks.push(name);
    }

    fn change_network(&mut self) {
        let Some(name) = self.pick(|client| &client.networks) else { return };
        self.networks.retain(|network| *network != name);
        self.record(vec![Key::Network(name.clone())], |client| {
            client.delete(&format!("/networks/{name}"));
        });
    }
}

/// What is asked of a daemon after the power came back, with all that it should know.
pub(super) fn remove_all(socket: &Path) {
    let ask = |method: &str, path: &str| {
        let mut api = Socket::connect(socket).expect("the daemon listens");
        let answer = api.request(method, path, &[], b"").expect("the daemon answers");
        assert!(answer.status < 400, "{method} {path}: {}", answer.text());
        answer
    };
    let containers = ask("GET", "/containers/json?all=1").json();
    for container in containers.as_array().into_iter().flatten() {
        let id = container["Id"].as_str().unwrap_or_default();
        ask("DELETE", &format!("/containers/{id}?force=1&v=1"));
    }
    // {"dangling":["false"]}, {"all":["true"]}
    ask("POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D");
    ask("POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D");
    ask("POST", "/networks/prune");
    assert_eq!(ask("GET", "/images/json?all=1").text().trim(), "[]", "images after their removal");
}
