//! `docker images --tree`: each image with the platforms that it has content for, where its store
//! knows of more than one; without them, a list with sizes and use.

use std::fmt::Write;

use api_types::image::{Manifest, Platform, Summary};

use super::short_id;
use crate::output::ellipsis;
use crate::terminal;

const WARNING: &str =
    "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.";
const IN_USE: &str = " U ";
const UNTAGGED: &str = "<untagged>";
/// Between columns.
const GAP: usize = 3;
/// A narrow window loses columns rather than this much of the first.
const NARROWEST: usize = 12;

/// Where the tree is shown. Docker colours the header wherever it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// Of a terminal; without one nothing but the header has colours.
    pub terminal: Option<usize>,
}

impl Screen {
    pub(super) fn stdout() -> Self {
        let width = usize::from(terminal::size().1);
        Self { terminal: terminal::stdout_is_terminal().then_some(width) }
    }

    fn width(self) -> usize {
        match self.terminal {
            None | Some(0) => 80,
            Some(width) => width.max(20),
        }
    }

    fn coloured(self, codes: &str, text: &str) -> String {
        if self.terminal.is_some() { coloured(codes, text) } else { text.to_owned() }
    }
}

const HEADER: &str = "\u{1b}[39m\u{1b}[1m";
const NAME: &str = "\u{1b}[34m\u{1b}[1m";
const PLAIN: &str = "\u{1b}[39m";
const FAINT: &str = "\u{1b}[39m\u{1b}[2m";

fn coloured(codes: &str, text: &str) -> String {
    format!("{codes}{text}\u{1b}[0m")
}

/// A line of the tree but for its first column.
struct Details {
    id: String,
    disk_usage: String,
    content: String,
    in_use: bool,
}

impl Details {
    fn new(id: &str, disk_usage: i64, content: i64, in_use: bool) -> Self {
        let size = |bytes: i64| spec::size::human_3(bytes as f64);
        let id = short_id(id).to_owned();
        Self { id, disk_usage: size(disk_usage), content: size(content), in_use }
    }
}

struct Child {
    platform: String,
    available: bool,
    details: Details,
}

struct Image {
    names: Vec<String>,
    details: Details,
    children: Vec<Child>,
}

impl Image {
    fn new(image: Summary) -> Self {
        let mut names = image.repo_tags;
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let manifests = image.manifests.unwrap_or_default();
        let content = manifests.iter().map(|manifest| manifest.size.content).sum();
        let children: Vec<Child> =
            manifests.iter().filter(|manifest| manifest.kind == "image").map(child).collect();
        let in_use = image.containers > 0 || children.iter().any(|child| child.details.in_use);
        let details = Details::new(&image.id, image.size, content, in_use);
        Self { names, details, children }
    }
}

fn child(manifest: &Manifest) -> Child {
    let image = manifest.image_data.as_ref();
    let in_use = image.is_some_and(|image| image.containers.iter().flatten().next().is_some());
    Child {
        platform: image.map(|image| platform(&image.platform)).unwrap_or_default(),
        available: manifest.available,
        details: Details::new(&manifest.id, manifest.size.total, manifest.size.content, in_use),
    }
}

/// `linux/arm64/v8`, as containerd writes it.
fn platform(platform: &Platform) -> String {
    if platform.os.is_empty() {
        return "unknown".to_owned();
    }
    let parts = [&platform.os, &platform.architecture, &platform.variant];
    parts
        .map(String::as_str)
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("/")
}

/// The columns behind the first: header, width, whether numbers stand at its right.
const COLUMNS: [(&str, usize, bool); 4] =
    [("ID", 12, false), ("DISK USAGE", 10, true), ("CONTENT SIZE", 12, true), ("EXTRA", 5, false)];

/// How wide the first column is, and how many others there is room for.
fn fit(width: usize, images: &[Image]) -> (usize, usize) {
    let mut first = width;
    let mut others = 0;
    for (_, column, _) in COLUMNS {
        match first.checked_sub(column + GAP) {
            Some(rest) if rest >= NARROWEST => first = rest,
            _ => break,
        }
        others += 1;
    }
    let names = images.iter().flat_map(|image| image.names.iter().map(|name| name.chars().count()));
    let children = images.iter().flat_map(|image| &image.children);
    let children = children.map(|child| child.platform.chars().count() + GAP);
    let untagged = images.iter().any(|image| image.names.is_empty());
    let untagged = untagged.then_some(UNTAGGED.len());
    let widest = names.chain(children).chain(untagged).chain(["IMAGE".len()]).max();
    (first.min(widest.unwrap_or_default()), others)
}

/// Images without any name are shown with `all` only.
pub(super) fn render(mut images: Vec<Summary>, all: bool, screen: Screen) -> String {
    images.retain(|image| all || !(image.repo_tags.is_empty() && image.repo_digests.is_empty()));
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let images: Vec<Image> = images.into_iter().map(Image::new).collect();
    let spaced = images.iter().any(|image| !image.children.is_empty());
    let (first, others) = fit(screen.width(), &images);
    let mut tree = Tree { screen, first, others, out: String::new() };
    tree.head();
    for image in &images {
        tree.image(image);
        if spaced {
            tree.out.push('\n');
        }
    }
    tree.out
}

struct Tree {
    screen: Screen,
    first: usize,
    others: usize,
    out: String,
}

impl Tree {
    fn head(&mut self) {
        let warning = self.screen.coloured("\u{1b}[93m", WARNING);
        let (width, legend) = match self.screen.terminal {
            Some(_) => (
                21,
                format!(
                    "{}\u{1b}[0m {}\u{1b}[0m {} In Use ",
                    coloured("\u{1b}[1m\u{1b}[106m\u{1b}[30m", "i"),
                    coloured("\u{1b}[96m", "Info → "),
                    chip()
                ),
            ),
            None => (18, "Info -> \u{20}U In Use ".to_owned()),
        };
        let indent = self.screen.width().saturating_sub(width);
        self.line(&format!("{warning}\n{:indent$}{legend}\n", ""));
        self.out.push_str(&padded(coloured(HEADER, "IMAGE"), "IMAGE".len(), self.first));
        for (title, width, _) in &COLUMNS[..self.others] {
            self.gap();
            self.out.push_str(&padded(coloured(HEADER, title), title.len(), *width));
        }
        self.out.push('\n');
    }

    fn line(&mut self, text: &str) {
        writeln!(self.out, "{text}").expect("writing to a String does not fail");
    }

    fn gap(&mut self) {
        self.out.extend([' '; GAP]);
    }

    /// The longest name first; beside the last are the numbers.
    fn image(&mut self, image: &Image) {
        match image.names.split_last() {
            None => self.cell(FAINT, UNTAGGED),
            Some((last, others)) => {
                for name in others {
                    let name = match self.screen.terminal {
                        Some(width) if width > 0 => ellipsis(name, width),
                        _ => name.clone(),
                    };
                    self.line(&self.screen.coloured(NAME, &name));
                }
                self.cell(NAME, last);
            }
        }
        self.details(PLAIN, &image.details);
        for (at, child) in image.children.iter().enumerate() {
            let branch = if at + 1 == image.children.len() { "└─" } else { "├─" };
            let colour = if child.available { PLAIN } else { FAINT };
            self.cell(colour, &format!("{branch} {}", child.platform));
            self.details(colour, &child.details);
        }
    }

    /// The first column.
    fn cell(&mut self, colour: &str, text: &str) {
        let text = ellipsis(text, self.first);
        let shown = self.screen.coloured(colour, &text);
        self.out.push_str(&padded(shown, text.chars().count(), self.first));
    }

    fn details(&mut self, colour: &str, details: &Details) {
        let texts = [&details.id, &details.disk_usage, &details.content];
        for (text, (_, width, right)) in texts.into_iter().zip(&COLUMNS[..self.others]) {
            self.gap();
            let shown = self.screen.coloured(colour, text);
            if *right {
                self.out.extend(std::iter::repeat_n(' ', width.saturating_sub(text.len())));
                self.out.push_str(&shown);
            } else {
                self.out.push_str(&padded(shown, text.len(), *width));
            }
        }
        if self.others == COLUMNS.len() {
            self.gap();
            self.out.push_str(&match (details.in_use, self.screen.terminal) {
                (false, _) => " ".repeat(COLUMNS[3].1),
                (true, Some(_)) => padded(chip(), IN_USE.len(), COLUMNS[3].1),
                (true, None) => padded(IN_USE.trim().to_owned(), 1, COLUMNS[3].1),
            });
        }
        self.out.push('\n');
    }
}

fn chip() -> String {
    coloured("\u{1b}[38;5;0m\u{1b}[48;5;14m", IN_USE)
}

/// Pads a text that is `length` characters wide on the screen.
fn padded(mut text: String, length: usize, width: usize) -> String {
    text.extend(std::iter::repeat_n(' ', width.saturating_sub(length)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two platforms, one of them without content; two names; an image without any.
    const IMAGES: &str = r#"[
        {"Created":1,"Id":"sha256:9d26b50e5936c4f32d58","RepoTags":[],"RepoDigests":[],"Size":5},
        {"Containers":-1,"Created":2,"Id":"sha256:2f6541381293ff783f2c","Size":2065298,
         "RepoTags":["b:1","busybox:latest"]},
        {"Created":3,"Id":"sha256:23c5248ae856ca309600","RepoTags":["debian:lab"],"Size":120332398,
         "Manifests":[
            {"ID":"sha256:aaaa5248ae856ca3","Available":true,"Kind":"image",
             "Size":{"Content":4000000,"Total":9000000},
             "ImageData":{"Platform":{"architecture":"amd64","os":"linux"},"Containers":["x"]}},
            {"ID":"sha256:bbbb5248ae856ca3","Available":false,"Kind":"image",
             "Size":{"Content":0,"Total":0},
             "ImageData":{"Platform":{"architecture":"arm","os":"linux","variant":"v7"}}},
            {"ID":"sha256:cccc5248ae856ca3","Available":true,"Kind":"attestation",
             "Size":{"Content":9999,"Total":9999}}]}]"#;

    fn tree(all: bool, terminal: Option<usize>) -> Vec<String> {
        let images = serde_json::from_str(IMAGES).unwrap();
        let text = render(images, all, Screen { terminal });
        text.replace('\u{1b}', "^").lines().map(str::to_owned).collect()
    }

    /// As docker 28.2.2 writes it.
    #[test]
    fn a_tree_in_a_file() {
        let lines = tree(false, None);
        assert_eq!(lines[0], WARNING);
        assert_eq!(lines[1], format!("{:62}Info ->  U In Use ", ""));
        assert_eq!(
            lines[3].replace("^[39m^[1m", "").replace("^[0m", ""),
            "IMAGE             ID             DISK USAGE   CONTENT SIZE   EXTRA"
        );
        let expected = [
            "debian:lab        23c5248ae856        120MB         4.01MB   U    ",
            "├─ linux/amd64    aaaa5248ae85          9MB            4MB   U    ",
            "└─ linux/arm/v7   bbbb5248ae85           0B             0B        ",
            "",
            "busybox:latest",
            "b:1               2f6541381293       2.07MB             0B        ",
            "",
        ];
        assert_eq!(lines[4..], expected);
        assert!(tree(true, None).contains(
            &"<untagged>        9d26b50e5936           5B             0B        ".to_owned()
        ));
    }

    #[test]
    fn a_tree_on_a_narrow_screen() {
        let lines = tree(false, Some(40));
        let legend =
            "^[1m^[106m^[30mi^[0m^[0m ^[96mInfo → ^[0m^[0m ^[38;5;0m^[48;5;14m U ^[0m In Use ";
        assert_eq!(lines[0], format!("^[93m{WARNING}^[0m"));
        assert_eq!(lines[1], format!("{:19}{legend}", ""));
        let expected = [
            "^[39m^[1mIMAGE^[0m          ^[39m^[1mID^[0m             ^[39m^[1mDISK USAGE^[0m",
            "^[34m^[1mdebian:lab^[0m     ^[39m23c5248ae856^[0m        ^[39m120MB^[0m",
            "^[39m├─ linux/am…^[0m   ^[39maaaa5248ae85^[0m          ^[39m9MB^[0m",
            "^[39m^[2m└─ linux/ar…^[0m   ^[39m^[2mbbbb5248ae85^[0m           ^[39m^[2m0B^[0m",
            "",
            "^[34m^[1mbusybox:latest^[0m",
            "^[34m^[1mb:1^[0m            ^[39m2f6541381293^[0m       ^[39m2.07MB^[0m",
            "",
        ];
        assert_eq!(lines[3..], expected);
    }
}
