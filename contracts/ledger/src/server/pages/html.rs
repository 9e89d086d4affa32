//! HTML that cannot be broken by what stands in it: tags and classes are ours and known when this is compiled, and
//! whatever else goes in is text, and escaped.

/// A page as it grows.
#[derive(Default)]
pub(super) struct Html(String);

impl Html {
    /// An element; a class of "" is none.
    pub(super) fn element(&mut self, tag: &'static str, class: &'static str, inside: impl FnOnce(&mut Self)) {
        self.0.push('<');
        self.0.push_str(tag);
        if !class.is_empty() {
            self.0.push_str(" class=\"");
            self.0.push_str(class);
            self.0.push('"');
        }
        self.0.push('>');
        inside(self);
        self.0.push_str("</");
        self.0.push_str(tag);
        self.0.push('>');
    }

    /// An element with nothing but text in it.
    pub(super) fn say(&mut self, tag: &'static str, class: &'static str, text: &str) {
        self.element(tag, class, |html| html.text(text));
    }

    /// A link within these pages.
    pub(super) fn link(&mut self, class: &'static str, path: &str, text: &str) {
        self.0.push_str("<a class=\"");
        self.0.push_str(class);
        self.0.push_str("\" href=\"");
        self.text(path);
        self.0.push_str("\">");
        self.text(text);
        self.0.push_str("</a>");
    }

    /// Text, in place. Characters that are not shown, or that turn the direction of writing, are replaced.
    pub(super) fn text(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                hidden if is_hidden(hidden) => self.0.push(char::REPLACEMENT_CHARACTER),
                other => self.0.push(other),
            }
        }
    }

    /// A part that was written apart.
    pub(super) fn append(&mut self, part: Self) {
        self.0.push_str(&part.0);
    }

    /// Markup that was written here.
    pub(super) fn markup(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_never_becomes_markup() {
        let mut html = Html::default();
        html.say("p", "note", "<script>alert(\"1\")</script> & 'x'\u{202e}\x1b");
        html.link("value", "/account/\"><b>", "<b>");
        assert_eq!(
            html.finish(),
            "<p class=\"note\">&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;x&#39;\u{fffd}\u{fffd}</p>\
             <a class=\"value\" href=\"/account/&quot;&gt;&lt;b&gt;\">&lt;b&gt;</a>"
        );
    }
}
