//! Headless Chromium, looking at a page of ours from a file.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Whoever has no Chromium must say so: then what needs it is skipped.
pub const WITHOUT: &str = "COCOON_NO_CHROMIUM";
/// Longest that one look may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Is there a browser? Says loudly what is not looked at, if the caller waived it.
///
/// # Panics
/// If there is none, and nobody said so.
pub fn present() -> bool {
    if std::env::var_os(WITHOUT).is_some_and(|value| value == "1") {
        eprintln!("{WITHOUT}=1: THE PAGE WAS NOT LOOKED AT");
        return false;
    }
    let found = Command::new("chromium").arg("--version").stdout(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "chromium is not installed: `apt-get install chromium`, or set {WITHOUT}=1 to skip looking at the page"
    );
    true
}

fn chromium(folder: &Path, arguments: &[String], page: &Path) -> Vec<u8> {
    let profile = tempfile::tempdir_in(folder).expect("a folder for the profile");
    let dom = folder.join("dom.html");
    let mut child = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--hide-scrollbars", "--force-device-scale-factor=1", "--allow-file-access-from-files"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&dom).expect("it can be written"))
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium starts");
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            assert!(status.success(), "chromium ended with {status}");
            return std::fs::read(&dom).expect("what it printed");
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("chromium did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How a page is laid out in a window of this width.
///
/// The page forbids scripts, its own included; a page around it measures it from outside.
pub fn layout(folder: &Path, page: &Path, width: u32, dark: bool) -> Value {
    let around = folder.join("around.html");
    let frame = format!(
        "<!DOCTYPE html><meta charset=utf-8><iframe id=f style='width:{width}px;height:900px;border:0' src='{}'></iframe>\
         <pre id=out></pre><script>{}</script>",
        page.file_name().expect("a file").to_string_lossy(),
        include_str!("measure.js"),
    );
    std::fs::write(&around, frame).expect("it can be written");
    let scheme = format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 });
    let dom = chromium(folder, &[scheme, "--window-size=1400,1000".into(), "--dump-dom".into()], &around);
    let dom = String::from_utf8_lossy(&dom);
    let json = dom.split_once("id=\"out\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let json =
        json.expect("the measurements").0.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// Pixels of a page's top, RGB.
pub struct Picture {
    pub width: usize,
    pub height: usize,
    rgb: Vec<u8>,
}

impl Picture {
    pub fn take(folder: &Path, page: &Path, width: u32, height: u32) -> Self {
        let file = folder.join(format!("{width}.png"));
        let arguments = [
            format!("--window-size={width},{height}"),
            format!("--screenshot={}", file.display()),
            "--blink-settings=preferredColorScheme=1".into(),
        ];
        chromium(folder, &arguments, page);
        let decoder =
            png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&file).expect("a picture")));
        let mut reader = decoder.read_info().expect("a PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("of a small picture")];
        let frame = reader.next_frame(&mut bytes).expect("pixels");
        let step = match frame.color_type {
            png::ColorType::Rgb => 3,
            png::ColorType::Rgba => 4,
            other => panic!("a picture of {other:?}"),
        };
        let rgb =
            bytes[..frame.buffer_size()].chunks_exact(step).flat_map(|pixel| pixel[..3].to_vec()).collect();
        Self { width: frame.width as usize, height: frame.height as usize, rgb }
    }

    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = 3 * (y * self.width + x);
        self.rgb[at..at + 3].try_into().expect("three bytes")
    }

    /// How much of a part is not of the page's own colour, 0 to 1.
    pub fn ink(&self, xs: std::ops::Range<usize>, ys: std::ops::Range<usize>) -> f64 {
        let page = self.pixel(1, 1);
        let all = xs.len() * ys.len();
        let inked =
            ys.flat_map(|y| xs.clone().map(move |x| (x, y))).filter(|(x, y)| self.pixel(*x, *y) != page);
        inked.count() as f64 / all as f64
    }

    /// Coarse: `#` mostly filled, `+` some ink, `.` none; one character for each cell, one line for each row of cells.
    pub fn coarse(&self, columns: usize, rows: usize) -> String {
        let span = |at: usize, of: usize, all: usize| at * all / of..(at + 1) * all / of;
        let cell = |row: usize, column: usize| match self
            .ink(span(column, columns, self.width), span(row, rows, self.height))
        {
            ink if ink > 0.6 => '#',
            ink if ink > 0.004 => '+',
            _ => '.',
        };
        let line =
            |row: usize| (0..columns).map(|column| cell(row, column)).chain(['\n']).collect::<String>();
        (0..rows).map(line).collect()
    }
}
