use std::cell::{Cell, RefCell};
use std::fs::File;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image::{Rgb, RgbImage};
use oxhttp::Server;
use oxhttp::model::{Body, Request, Response};

use super::journal::{FILE, Licences};
use super::web::{Answer, Client};
use super::*;
use crate::curate::tests::free_address;
use crate::progress::Silent;

/// A clock that only waiting moves.
#[derive(Default)]
struct Made(Cell<u64>);

impl Clock for Made {
    fn now_ms(&self) -> u64 {
        self.0.get()
    }

    fn sleep_ms(&self, ms: u64) {
        self.0.set(self.0.get() + ms);
    }
}

/// Another web, and what was asked of it when.
struct Noted<'a, W> {
    web: W,
    clock: &'a Made,
    asked: RefCell<Vec<(u64, String)>>,
}

impl<'a, W: Web> Noted<'a, W> {
    fn new(web: W, clock: &'a Made) -> Self {
        Self { web, clock, asked: RefCell::default() }
    }

    fn times(&self, part: &str) -> Vec<u64> {
        self.asked.borrow().iter().filter(|(_, url)| url.contains(part)).map(|(at, _)| *at).collect()
    }
}

impl<W: Web> Web for Noted<'_, W> {
    fn get(&mut self, url: &str, largest: usize) -> Result<Answer, String> {
        self.asked.borrow_mut().push((self.clock.now_ms(), url.to_owned()));
        self.web.get(url, largest)
    }
}

/// A web in memory: answers by address, the first for the first request; the last stays.
struct Pages(HashMap<&'static str, VecDeque<Result<Answer, String>>>);

impl Web for Pages {
    fn get(&mut self, url: &str, _: usize) -> Result<Answer, String> {
        let answers = self.0.get_mut(url).unwrap_or_else(|| panic!("nobody should ask for {url}"));
        if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() }
    }
}

fn picture(shade: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(9, 9, Rgb([shade, 1, 2])).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn status(status: u16) -> Result<Answer, String> {
    Ok(Answer { status, ..Answer::default() })
}

fn page(body: &[u8]) -> Result<Answer, String> {
    Ok(Answer { status: 200, body: body.to_vec(), ..Answer::default() })
}

fn list(dir: &Path, rows: &str) -> PathBuf {
    let path = dir.join("list.csv");
    std::fs::write(&path, format!("url,identity,licence\n{rows}")).unwrap();
    path
}

/// Outcome by the end of the address.
fn outcomes(out: &Path) -> BTreeMap<String, String> {
    let rows = Rows::open(&out.join(FILE)).unwrap().map(Result::unwrap);
    rows.map(|(_, row)| (row[0].rsplit('/').next().unwrap().to_owned(), row[3].clone())).collect()
}

/// One host of the test: answers from now on, and notes every path.
fn serve(address: SocketAddr, other: SocketAddr, rules: &'static str) -> Arc<Mutex<Vec<String>>> {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let noted = Arc::clone(&asked);
    let answer = move |request: &mut Request<Body>| {
        let path = request.uri().path().to_owned();
        let mut asked = noted.lock().unwrap();
        asked.push(path.clone());
        let before = asked.iter().filter(|asked| **asked == path).count() - 1;
        drop(asked);
        let moved = |to: String| (302, vec![], Some(("Location", to)));
        let (status, body, header) = match path.as_str() {
            "/robots.txt" => (200, rules.as_bytes().to_vec(), None),
            "/ok.png" | "/elsewhere.png" => (200, picture(1), None),
            "/page.png" => (200, b"<html>not found</html>".to_vec(), None),
            "/big.png" => (200, vec![7; 300_000], None),
            "/moved.png" => moved("ok.png".into()),
            "/away.png" => moved(format!("http://{other}/elsewhere.png")),
            "/round.png" => moved("/round.png".into()),
            "/slow.png" => {
                std::thread::sleep(Duration::from_secs(60));
                (200, picture(2), None)
            }
            "/busy.png" if before == 0 => (503, vec![], Some(("Retry-After", "33".into()))),
            "/busy.png" => (200, picture(3), None),
            _ => (404, vec![], None),
        };
        let response = Response::builder().status(status);
        let response = header.into_iter().fold(response, |made, (name, value)| made.header(name, value));
        response.body(Body::from(body)).unwrap()
    };
    Server::new(answer).bind(address).spawn().unwrap();
    asked
}

#[test]
fn a_real_server_is_asked_politely_and_what_it_gives_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (free_address(), free_address());
    let base = format!("http://{here}");
    let names = ["ok", "page", "big", "moved", "away", "round", "slow", "busy", "none", "secret"];
    let rows: String = names.iter().map(|name| format!("{base}/{name}.png,Ann Lee,CC BY 4.0\n")).collect();
    let list = list(dir.path(), &format!("{rows}no address,Ann Lee,\n"));
    let clock = Made::default();
    // Time is made up, but for how long the client waits for a slow answer.
    let client = Client::new("facelatch-test", Duration::from_secs(2), false);
    let mut web = Noted::new(client, &clock);
    let out = dir.path().join("out");
    let options = Options { pause_ms: 1000, retries: 1, largest: 200_000 };
    let asked = serve(here, there, "User-agent: *\nDisallow: /secret\nCrawl-delay: 5");
    let asked_there = serve(there, here, "User-agent: facelatch\nDisallow: /else");
    let found = run(&list, &out, &options, (&mut web, &clock), &Silent).unwrap();
    let outcomes = outcomes(&out);
    let of = |name: &str| outcomes[name].as_str();
    assert_eq!([of("ok.png"), of("moved.png"), of("busy.png")], ["kept"; 3]);
    assert_eq!([of("page.png"), of("big.png")], ["no picture", "too large"]);
    assert_eq!([of("secret.png"), of("away.png")], ["forbidden by robots.txt"; 2]);
    assert_eq!([of("none.png"), of("round.png")], ["status 404", "redirected too often"]);
    assert!(of("slow.png").contains("in time"), "{}", of("slow.png"));
    assert!(of("no address").contains("address"), "{}", of("no address"));
    assert_eq!(found["kept"], 3);
    assert!(!asked.lock().unwrap().iter().any(|path| path.contains("secret")));
    assert_eq!(*asked_there.lock().unwrap(), ["/robots.txt"], "the redirect's host has rules of its own");
    // The host's own delay counts, not our shorter pause, between any two requests.
    let times = web.times(&base);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 5000), "{times:?}");
    let busy = web.times("busy.png");
    assert!(busy.len() == 2 && busy[1] - busy[0] >= 33_000, "as Retry-After says: {busy:?}");
    assert_eq!(web.times("slow.png").len(), 2, "once more after no answer");
    let licences = Licences::read(&out).unwrap();
    let file = std::fs::read_dir(out.join("Ann Lee")).unwrap().next().unwrap().unwrap();
    let file = format!("Ann Lee/{}", file.file_name().to_string_lossy());
    assert_eq!(licences.of(&file), Some("CC BY 4.0"), "{file}");
}

#[test]
fn hosts_take_turns_and_failures_back_off_ever_longer() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String =
        ["a/1", "a/2", "b/1", "b/2", "c/1", "d/1"].iter().map(|at| format!("http://{at},x,\n")).collect();
    let list = list(dir.path(), &rows);
    let mut pages = HashMap::new();
    for url in ["http://a/1", "http://a/2", "http://b/1", "http://b/2", "http://d/1"] {
        pages.insert(url, VecDeque::from([page(&picture(url.as_bytes()[7]))]));
    }
    pages.insert("http://a/robots.txt", VecDeque::from([status(404)]));
    pages.insert("http://b/robots.txt", VecDeque::from([status(500), page(b"")]));
    // c has no rules to be had and so forbids everything, d gives no answer.
    pages.insert("http://c/robots.txt", VecDeque::from([Err("refused".to_owned())]));
    pages.insert("http://d/robots.txt", VecDeque::from([status(404)]));
    pages.insert("http://d/1", VecDeque::from([Err("refused".to_owned())]));
    let clock = Made::default();
    let mut web = Noted::new(Pages(pages), &clock);
    let options = Options { retries: 3, ..Options::default() };
    let found = run(&list, &dir.path().join("out"), &options, (&mut web, &clock), &Silent).unwrap();
    let expected = [("forbidden by robots.txt", 1), ("kept", 4), ("refused", 1)];
    assert_eq!(found, expected.map(|(word, n)| (word.to_owned(), n)).into());
    assert_eq!(web.times("a/"), [0, 1000, 2000], "rules, then a picture a second");
    assert_eq!(web.times("b/")[..2], [0, 2000]);
    assert_eq!(web.times("c/"), [0, 2000, 6000, 14_000], "ever longer");
    assert_eq!(web.times("d/1"), [1000, 3000, 7000, 15_000]);
}

#[test]
fn cut_short_anywhere_it_ends_with_the_same_pictures_and_asks_for_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let rows: String =
        (0..4).map(|i| format!("http://a/{i},\"Lee, Ann {}\",\"CC \"\"0\"\"\"\n", i % 2)).collect();
    let list = list(dir.path(), &format!("{rows}http://a/0,\"Lee, Ann 0\",twice\n"));
    let urls = ["http://a/0", "http://a/1", "http://a/2", "http://a/3"];
    let pages = || {
        let mut pages: HashMap<_, _> =
            urls.iter().map(|&url| (url, VecDeque::from([page(&picture(url.as_bytes()[9]))]))).collect();
        pages.insert(urls[2], VecDeque::from([status(404)]));
        pages.insert("http://a/robots.txt", VecDeque::from([status(404)]));
        Pages(pages)
    };
    let clock = Made::default();
    let go = |out: &Path| {
        let mut web = Noted::new(pages(), &clock);
        let found = run(&list, out, &Options::default(), (&mut web, &clock), &Silent).unwrap();
        (found, web.asked.borrow().iter().filter(|(_, url)| !url.ends_with("robots.txt")).count())
    };
    let files = |out: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let folders = std::fs::read_dir(out).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir());
        let files = folders
            .flat_map(|f| std::fs::read_dir(f).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>());
        files
            .map(|path| (path.strip_prefix(out).unwrap().to_owned(), std::fs::read(&path).unwrap()))
            .collect()
    };
    let whole = dir.path().join("whole");
    let (found, asked) = go(&whole);
    assert_eq!((found["kept"], found["status 404"], asked), (3, 1, 4));
    let journal = std::fs::read(whole.join(FILE)).unwrap();
    // Killed after any byte of the list: of pictures without a line some are there already, some are not.
    let lines_of = |bytes: &[u8]| bytes.iter().filter(|&&b| b == b'\n').count().saturating_sub(1);
    for cut in 0..journal.len() {
        let out = dir.path().join("cut");
        std::fs::create_dir_all(&out).unwrap();
        let before = String::from_utf8_lossy(&journal[..cut]).into_owned();
        for (path, bytes) in files(&whole) {
            let written =
                before.rsplit_once('\n').is_some_and(|(lines, _)| lines.contains(path.to_str().unwrap()));
            if written || cut % 2 == 0 {
                std::fs::create_dir_all(out.join(&path).parent().unwrap()).unwrap();
                std::fs::write(out.join(path), bytes).unwrap();
            }
        }
        std::fs::write(out.join(FILE), &journal[..cut]).unwrap();
        assert_eq!(go(&out).1, 4 - lines_of(&journal[..cut]), "{cut}");
        assert_eq!(std::fs::read(out.join(FILE)).unwrap(), journal, "{cut}");
        assert_eq!(files(&out), files(&whole), "{cut}");
        std::fs::remove_dir_all(&out).unwrap();
    }
    assert_eq!(go(&whole).1, 0, "nothing is left to ask for");
    let first = File::open(whole.join(FILE)).unwrap();
    first.lock().unwrap();
    let busy = run(&list, &whole, &Options::default(), (&mut pages(), &clock), &Silent);
    assert!(matches!(busy, Err(FetchError::Busy { .. })), "{busy:?}");
}

#[test]
fn a_list_without_its_columns_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Made::default();
    for (text, part) in [
        ("link,identity\n", "no column 'url' but link, identity"),
        ("url\nhttp://a/1\n", "no column 'identity'"),
        ("url,identity\nhttp://a/1,\n", "line 2: it names nobody"),
    ] {
        let list = dir.path().join("bad.csv");
        std::fs::write(&list, text).unwrap();
        let out = dir.path().join("out");
        let mut none = Pages(HashMap::new());
        let said = run(&list, &out, &Options::default(), (&mut none, &clock), &Silent).unwrap_err();
        assert!(said.to_string().contains(part), "{said}");
    }
    let mut none = Pages(HashMap::new());
    let missing = dir.path().join("missing.csv");
    let said = run(&missing, dir.path(), &Options::default(), (&mut none, &clock), &Silent).unwrap_err();
    assert!(said.to_string().starts_with("cannot read "), "{said}");
}
