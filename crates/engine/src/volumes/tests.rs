//! Volumes without containers, and what a crash leaves of them.

use super::*;

struct World {
    root: tempfile::TempDir,
    store: Store,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path().join("metadata.redb")).unwrap();
        Self { root, store }
    }

    fn open(&self) -> Arc<Volumes> {
        let path = self.root.path().join("volumes");
        let volumes = Volumes::open(path, self.store.clone(), Arc::default(), Arc::default());
        Arc::new(volumes.unwrap())
    }

    fn at(&self, place: &str) -> PathBuf {
        self.root.path().join("volumes").join(place)
    }

    fn make(&self, place: &str, text: &str) {
        std::fs::create_dir_all(self.at(place)).unwrap();
        std::fs::write(self.at(place).join("file"), text).unwrap();
    }

    fn text(&self, place: &str) -> String {
        std::fs::read_to_string(self.at(place).join("file")).unwrap_or_default()
    }
}

fn request(name: &str) -> CreateRequest {
    CreateRequest { name: name.to_owned(), ..CreateRequest::default() }
}

async fn names(volumes: &Arc<Volumes>, filters: &str) -> Vec<String> {
    let list = volumes.list(&Filters::parse(filters).unwrap()).await.unwrap();
    list.volumes.into_iter().map(|volume| volume.name).collect()
}

#[test]
fn v02_names_are_checked() {
    let check = |name: &str, expect: &str| {
        let got = check_name(name).map_err(|reason| reason.to_string());
        let text = got.err().unwrap_or_default();
        assert!(text.starts_with(expect) && text.is_empty() == expect.is_empty(), "{name}: {text}");
    };
    check("ok_vol-1.x", "");
    check("a", "volume name is too short");
    check(".", "volume name is too short");
    check("..", "\"..\" includes invalid characters");
    check("../../x", "\"../../x\" includes invalid characters");
    check("a\0b", "\"a\\0b\" includes invalid characters");
    check("_x", "\"_x\" includes invalid characters");
    check(&"a".repeat(256), "volume name is longer than 255 bytes");
    check(&"a".repeat(255), "");
}

#[tokio::test]
async fn volumes_come_and_go() {
    let world = World::new();
    let volumes = world.open();
    let made = volumes.create(request("data")).await.unwrap();
    assert_eq!(made.mountpoint, world.at("data/_data").display().to_string());
    let anonymous = volumes.create(request("")).await.unwrap();
    assert!(Id::parse(&anonymous.name).is_some());
    assert!(anonymous.labels.unwrap().contains_key(ANONYMOUS));
    world.make("data/_data", "kept");
    // The same name is the same volume.
    volumes.create(request("data")).await.unwrap();
    assert_eq!(world.text("data/_data"), "kept");
    assert_eq!(names(&volumes, r#"{"name":["dat"]}"#).await, ["data"]);
    assert_eq!(
        names(&volumes, r#"{"label":["com.docker.volume.anonymous"]}"#).await,
        [&*anonymous.name]
    );
    let pruned = volumes.prune(Filters::default(), false).await.unwrap();
    assert_eq!(pruned.volumes_deleted, Some(vec![anonymous.name]));
    // Another daemon finds what this one made.
    assert_eq!(names(&world.open(), "").await, ["data"]);
    volumes.remove("data", false).await.unwrap();
    let error = volumes.remove("data", false).await.unwrap_err();
    assert_eq!(error.to_string(), "get data: no such volume");
    volumes.remove("data", true).await.unwrap();
    assert_eq!(names(&world.open(), "").await, [""; 0]);
}

#[tokio::test]
async fn what_a_crash_leaves_is_finished_or_taken_back() {
    let world = World::new();
    let volumes = world.open();
    for name in ["kept", "moved", "spared"] {
        volumes.create(request(name)).await.unwrap();
    }
    // Committed, not yet in place; about to go, not committed; neither; in place without a record.
    std::fs::remove_dir_all(world.at("moved")).unwrap();
    world.make(".making/moved/_data", "moved");
    std::fs::remove_dir_all(world.at("spared")).unwrap();
    world.make(".removing/spared/_data", "spared");
    world.make(".making/never/_data", "");
    world.make(".removing/gone/_data", "");
    world.make("found/_data", "found");
    std::fs::create_dir_all(world.at("odd")).unwrap();
    std::os::unix::fs::symlink("/etc", world.at("odd/_data")).unwrap();
    let volumes = world.open();
    assert_eq!(names(&volumes, "").await, ["found", "kept", "moved", "spared"]);
    for name in ["moved", "spared", "found"] {
        assert_eq!(world.text(&format!("{name}/_data")), name);
    }
    assert!(!world.at(".making/never").exists() && !world.at(".removing/gone").exists());
}

#[tokio::test]
async fn a_hold_that_comes_to_nothing_leaves_nothing() {
    let world = World::new();
    let volumes = world.open();
    let mut holds = Holds::new(&volumes);
    let name = holds.add("new", &Wanted::default()).unwrap().name;
    holds.prepare().unwrap();
    assert!(volumes.doom(&name, None).is_err());
    drop(holds);
    assert!(!world.at(".making/new").exists());
    assert_eq!(names(&volumes, "").await, [""; 0]);
}

#[tokio::test]
async fn an_empty_volume_is_filled_once() {
    let world = World::new();
    let volumes = world.open();
    let image = world.root.path().join("image");
    std::fs::create_dir_all(image.join("srv/data")).unwrap();
    std::fs::write(image.join("srv/data/file"), "first").unwrap();
    std::os::unix::fs::symlink("/etc", image.join("out")).unwrap();
    let root = RootDir::open(&image).unwrap();
    volumes.create(request("old")).await.unwrap();
    let mut holds = Holds::new(&volumes);
    for name in ["old", "new", "link"] {
        holds.add(name, &Wanted::default()).unwrap();
    }
    holds.prepare().unwrap();
    holds.fill("old", &root, "/srv/data").unwrap();
    holds.fill("new", &root, "/srv/data").unwrap();
    // V03: the link leads to /etc of the image, which has none.
    holds.fill("link", &root, "/out").unwrap();
    std::fs::write(image.join("srv/data/file"), "second").unwrap();
    holds.fill("old", &root, "/srv/data").unwrap();
    holds.settle();
    assert_eq!(
        (world.text("old/_data"), world.text("new/_data")),
        ("first".into(), "first".into())
    );
    assert_eq!(std::fs::read_dir(world.at("link/_data")).unwrap().count(), 0);
}

#[test]
fn mounts_below_are_noticed() {
    assert_eq!(mounted_below(Path::new("/proc")).as_deref(), Some("/proc"));
    assert_eq!(mounted_below(Path::new("/proc/self/nothing")), None);
}
