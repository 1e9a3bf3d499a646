//! A document as Markdown, HTML and plain text.

use std::fmt::Write as _;

/// A part of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Level and text.
    Heading(u8, String),
    /// A paragraph.
    Text(String),
    /// Rows under a header.
    Table {
        /// Names of the columns.
        header: Vec<String>,
        /// Cells.
        lines: Vec<Vec<String>>,
    },
    /// A drawing.
    Svg(String),
    /// A file beside the document.
    Picture {
        /// Its name.
        file: String,
        /// What it shows.
        caption: String,
    },
}

impl Part {
    /// As Markdown; drawings are left to whoever writes their files.
    #[must_use]
    pub fn markdown(&self) -> String {
        let cell = |text: &String| text.replace('|', "\\|").replace('\n', " ");
        match self {
            Self::Heading(level, text) => format!("{} {text}\n\n", "#".repeat(usize::from(*level))),
            Self::Text(text) => format!("{text}\n\n"),
            Self::Table { header, lines } => {
                let row = |cells: &[String]| {
                    format!("| {} |\n", cells.iter().map(cell).collect::<Vec<_>>().join(" | "))
                };
                let rule = format!("|{}\n", "---|".repeat(header.len()));
                let body: String = lines.iter().map(|line| row(line)).collect();
                format!("{}{rule}{body}\n", row(header))
            }
            Self::Svg(_) => String::new(),
            Self::Picture { file, caption } => format!("![{caption}]({file})\n\n{caption}\n\n"),
        }
    }

    /// As HTML.
    #[must_use]
    pub fn html(&self) -> String {
        match self {
            Self::Heading(level, text) => format!("<h{level}>{}</h{level}>\n", escape(text)),
            Self::Text(text) => format!("<p>{}</p>\n", code(&escape(text))),
            Self::Table { header, lines } => {
                let row = |cells: &[String], tag: &str| {
                    let cells: String =
                        cells.iter().map(|c| format!("<{tag}>{}</{tag}>", escape(c))).collect();
                    format!("<tr>{cells}</tr>\n")
                };
                let body: String = lines.iter().map(|line| row(line, "td")).collect();
                format!("<table>\n{}{body}</table>\n", row(header, "th"))
            }
            Self::Svg(svg) => format!("{svg}\n"),
            Self::Picture { file, caption } => {
                let (file, caption) = (escape(file), escape(caption));
                format!(
                    "<figure><img src=\"{file}\" alt=\"{caption}\"><figcaption>{caption}</figcaption></figure>\n"
                )
            }
        }
    }

    /// As aligned columns for a terminal; other parts as Markdown.
    #[must_use]
    pub fn text(&self) -> String {
        let Self::Table { header, lines } = self else { return self.markdown() };
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column)).chain(header.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let mut text = String::new();
        for line in std::iter::once(header).chain(lines) {
            let cells: Vec<String> = line
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
                .collect();
            let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        }
        text
    }
}

/// A whole page round `body`; nothing on it is loaded from elsewhere.
#[must_use]
pub fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{}</title>\n<style>body{{font:16px/1.5 system-ui,sans-serif;\
         max-width:64em;margin:2em auto;padding:0 1em}}table{{border-collapse:collapse;font-size:14px}}td,th{{border:1px solid #ccc;\
         padding:4px 8px;text-align:left;vertical-align:top}}img,svg{{max-width:100%}}figure{{margin:1em 0}}figcaption{{color:#555}}</style>\n\
         {body}</html>\n",
        escape(title)
    )
}

/// A bar of a diagram.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Before it.
    pub name: String,
    /// Its length; the longest fills the width.
    pub value: f64,
    /// After it.
    pub label: String,
}

/// A diagram of horizontal bars as SVG.
#[must_use]
pub fn bars(title: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let height = 44 + 26 * bars.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"{height}\" viewBox=\"0 0 720 {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"720\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"22\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escape(title)
    );
    for (at, bar) in bars.iter().enumerate() {
        let (y, width) = (36 + 26 * at, 380.0 * bar.value.max(0.0) / most);
        let _ = writeln!(
            svg,
            "<text x=\"130\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"138\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" \
             fill=\"#2a6fb0\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
            y + 14,
            escape(&bar.name),
            144.0 + width,
            y + 14,
            escape(&bar.label)
        );
    }
    svg + "</svg>"
}

/// What stands between backticks as code.
fn code(escaped: &str) -> String {
    let parts = escaped.split('`').enumerate();
    parts
        .map(|(at, part)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.to_owned() })
        .collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_becomes_markup() {
        let table = Part::Table { header: vec!["a|b".into()], lines: vec![vec!["<script>".into()]] };
        assert_eq!(table.markdown(), "| a\\|b |\n|---|\n| <script> |\n\n");
        assert!(table.html().contains("&lt;script&gt;") && !table.html().contains("<script>"));
        assert_eq!(Part::Text("run `a <b>`".into()).html(), "<p>run <code>a &lt;b&gt;</code></p>\n");
        assert_eq!(table.text(), "a|b\n<script>\n");
        let svg = bars("t", &[Bar { name: "<x>".into(), value: 0.0, label: "\"".into() }]);
        assert!(svg.contains("&lt;x&gt;") && svg.contains("&quot;") && !svg.contains("NaN"));
    }
}
