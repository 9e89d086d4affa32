//! XML 1.0 with namespaces, as narrow as RIMs are: elements, attributes and text.
//!
//! Comments, CDATA, processing instructions, document types and `xml:` attributes are refused, and so is every entity but
//! the five and character references: whatever can be read is what the signature covers.

use std::borrow::Cow;

use crate::Malformed;

/// The largest RIM, in bytes.
pub(super) const MAX_RIM: usize = 512 * 1024;
/// Deepest nesting of elements.
pub(super) const MAX_DEPTH: usize = 16;
/// Most elements.
const MAX_ELEMENTS: usize = 4096;
/// Most attributes and namespace declarations of one element.
const MAX_ATTRIBUTES: usize = 128;

const WHAT: &str = "RIM";

/// A document: its elements in the order in which they begin; the first is the root.
#[derive(Debug, Clone)]
pub(super) struct Document<'a> {
    pub(super) elements: Vec<Element<'a>>,
}

/// An element.
#[derive(Debug, Clone)]
pub(super) struct Element<'a> {
    pub(super) name: Name<'a>,
    /// Namespace; empty if there is none.
    pub(super) namespace: Cow<'a, str>,
    /// Namespaces declared here: prefix (empty for the default one) and URI.
    pub(super) declared: Vec<(&'a str, Cow<'a, str>)>,
    pub(super) attributes: Vec<Attribute<'a>>,
    pub(super) children: Vec<Node<'a>>,
    pub(super) parent: Option<usize>,
}

/// `prefix:local`; the prefix may be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    pub(super) prefix: &'a str,
    pub(super) local: &'a str,
}

/// An attribute, its value as it reads after normalisation (XML 1.0, 3.3.3).
#[derive(Debug, Clone)]
pub(super) struct Attribute<'a> {
    pub(super) name: Name<'a>,
    /// Namespace; empty for an attribute without prefix.
    pub(super) namespace: Cow<'a, str>,
    pub(super) value: Cow<'a, str>,
}

/// What stands in an element.
#[derive(Debug, Clone)]
pub(super) enum Node<'a> {
    /// Its place in [`Document::elements`].
    Element(usize),
    Text(Cow<'a, str>),
}

impl<'a> Document<'a> {
    /// Reads a whole document. Lines must end in LF: see [`line_ends`].
    pub(super) fn parse(text: &'a str) -> Result<Self, Malformed> {
        if let Some(at) = forbidden(text) {
            return Err(Malformed::at(WHAT, at, "text", "a character that XML does not allow"));
        }
        let mut parser = Parser { text, at: 0, document: Self { elements: Vec::new() }, open: Vec::new() };
        parser.prolog()?;
        parser.markup()?;
        while !parser.open.is_empty() {
            if parser.rest().starts_with('<') { parser.markup()? } else { parser.text()? }
        }
        parser.white_space();
        if !parser.rest().is_empty() {
            return Err(parser.error("end", "something follows the root element"));
        }
        Ok(parser.document)
    }

    pub(super) fn root(&self) -> &Element<'a> {
        &self.elements[0]
    }

    /// The elements in an element, and `None` if there is text other than white space beside them.
    pub(super) fn children(&self, of: &Element<'a>) -> Option<Vec<usize>> {
        let mut found = Vec::new();
        for node in &of.children {
            match node {
                Node::Element(at) => found.push(*at),
                Node::Text(text) if text.bytes().all(is_space) => {}
                Node::Text(_) => return None,
            }
        }
        Some(found)
    }

    /// The text of an element that holds nothing else.
    pub(super) fn text(&self, at: usize) -> Option<String> {
        let mut out = String::new();
        for node in &self.elements[at].children {
            match node {
                Node::Text(text) => out.push_str(text),
                Node::Element(_) => return None,
            }
        }
        Some(out)
    }

    /// Namespaces in force at an element, the nearest declaration first.
    pub(super) fn in_scope(&self, at: usize) -> Vec<(&'a str, &str)> {
        let (mut scope, mut next): (Vec<(&'a str, &str)>, _) = (Vec::new(), Some(at));
        while let Some(element) = next.map(|at| &self.elements[at]) {
            for (prefix, uri) in &element.declared {
                if !scope.iter().any(|(known, _)| known == prefix) {
                    scope.push((prefix, uri));
                }
            }
            next = element.parent;
        }
        scope
    }

    fn resolve(
        &self,
        prefix: &str,
        declared: &[(&'a str, Cow<'a, str>)],
        parent: Option<usize>,
    ) -> Option<Cow<'a, str>> {
        let of = |list: &[(&'a str, Cow<'a, str>)]| {
            list.iter().find(|(known, _)| *known == prefix).map(|(_, uri)| uri.clone())
        };
        let mut found = of(declared);
        let mut next = parent;
        while let (None, Some(at)) = (&found, next) {
            found = of(&self.elements[at].declared);
            next = self.elements[at].parent;
        }
        // Without a default namespace, a name without prefix is in none.
        found.or_else(|| prefix.is_empty().then_some(Cow::Borrowed("")))
    }
}

impl<'a> Element<'a> {
    /// Is it this element of this namespace?
    pub(super) fn is(&self, namespace: &str, local: &str) -> bool {
        self.namespace == namespace && self.name.local == local
    }

    /// The value of an attribute without namespace.
    pub(super) fn attribute(&self, local: &str) -> Option<&str> {
        self.attribute_of("", local)
    }

    /// The value of an attribute of a namespace.
    pub(super) fn attribute_of(&self, namespace: &str, local: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|a| a.name.local == local && a.namespace == namespace)?;
        Some(&found.value)
    }
}

/// The text with its lines ending in LF (XML 1.0, 2.11), without a byte order mark.
pub(super) fn line_ends(bytes: &[u8]) -> Result<Cow<'_, str>, Malformed> {
    if bytes.len() > MAX_RIM {
        return Err(Malformed::at(WHAT, 0, "length", format!("{} bytes, at most {MAX_RIM}", bytes.len())));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Malformed::at(WHAT, error.valid_up_to(), "text", "not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.contains('\r') {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")))
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    document: Document<'a>,
    /// Elements that have begun and not ended.
    open: Vec<usize>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&self, field: &'static str, reason: impl Into<String>) -> Malformed {
        Malformed::at(WHAT, self.at, field, reason)
    }

    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        self.at += if found { expected.len() } else { 0 };
        found
    }

    /// Steps over characters up to the first that does not fit.
    fn run(&mut self, fits: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|byte| !fits(byte)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn white_space(&mut self) -> bool {
        !self.run(is_space).is_empty()
    }

    /// An XML declaration, if there is one, may name UTF-8 alone.
    fn prolog(&mut self) -> Result<(), Malformed> {
        if self.rest().starts_with("<?xml ") {
            let Some((declaration, _)) = self.rest().split_once("?>") else {
                return Err(self.error("declaration", "it does not end"));
            };
            let plain = declaration.replace('\'', "\"").to_ascii_lowercase();
            let known = ["version=\"1.0\"", "encoding=\"utf-8\"", "standalone=\"no\"", "standalone=\"yes\""];
            if !plain["<?xml ".len()..].split_ascii_whitespace().all(|part| known.contains(&part)) {
                return Err(self.error("declaration", "neither version 1.0 nor UTF-8"));
            }
            self.at += declaration.len() + 2;
        }
        self.white_space();
        Ok(())
    }

    fn markup(&mut self) -> Result<(), Malformed> {
        if self.eat("</") {
            return self.close();
        }
        if ["<!", "<?"].iter().any(|other| self.rest().starts_with(other)) || !self.eat("<") {
            return Err(self.error("markup", "an element must begin here, and nothing else"));
        }
        self.element()
    }

    fn name(&mut self) -> Result<Name<'a>, Malformed> {
        let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let start = self.at;
        let part = |parser: &mut Self| {
            let text = parser.run(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
            text.bytes().next().is_some_and(first).then_some(text)
        };
        let head = part(self);
        let name = match (head, self.eat(":")) {
            (Some(local), false) => Some(Name { prefix: "", local }),
            (Some(prefix), true) => part(self).map(|local| Name { prefix, local }),
            (None, _) => None,
        };
        name.ok_or_else(|| Malformed::at(WHAT, start, "name", "not a name"))
    }

    fn element(&mut self) -> Result<(), Malformed> {
        if self.document.elements.len() == MAX_ELEMENTS || self.open.len() == MAX_DEPTH {
            let limit = format!("more than {MAX_ELEMENTS} elements, or deeper than {MAX_DEPTH}");
            return Err(self.error("element", limit));
        }
        let name = self.name()?;
        let (declared, plain) = self.attributes()?;
        let parent = self.open.last().copied();
        let empty = self.eat("/");
        if !self.eat(">") {
            return Err(self.error("element", "its tag does not end"));
        }
        let element = self.resolved(name, declared, plain, parent)?;
        let at = self.document.elements.len();
        self.document.elements.push(element);
        if let Some(parent) = parent {
            self.document.elements[parent].children.push(Node::Element(at));
        }
        if !empty {
            self.open.push(at);
        } else if parent.is_none() {
            return Err(self.error("element", "the root is empty"));
        }
        Ok(())
    }

    /// Namespace declarations and attributes, not yet resolved.
    #[expect(clippy::type_complexity, reason = "two lists of pairs, taken apart at once")]
    fn attributes(
        &mut self,
    ) -> Result<(Vec<(&'a str, Cow<'a, str>)>, Vec<(Name<'a>, Cow<'a, str>)>), Malformed> {
        let (mut declared, mut plain): (Vec<(&'a str, Cow<'a, str>)>, Vec<(Name<'a>, _)>) =
            Default::default();
        while self.white_space() && !self.rest().starts_with(['/', '>']) {
            let name = self.name()?;
            self.white_space();
            let equals = self.eat("=");
            self.white_space();
            let value = self.value().filter(|_| equals);
            let value =
                value.ok_or_else(|| self.error("attribute", "no quoted value of plain characters"))?;
            let space = match (name.prefix, name.local) {
                ("", "xmlns") => Some(""),
                ("xmlns", prefix) => Some(prefix),
                _ => None,
            };
            match space {
                Some(prefix) if value.is_empty() || prefix == "xml" || prefix == "xmlns" => {
                    return Err(self.error("namespace", "an empty or reserved one"));
                }
                Some(prefix) if declared.iter().any(|(known, _)| *known == prefix) => {
                    return Err(self.error("namespace", "declared twice"));
                }
                Some(prefix) => declared.push((prefix, value)),
                None => plain.push((name, value)),
            }
            if declared.len() + plain.len() > MAX_ATTRIBUTES {
                return Err(self.error("attribute", format!("more than {MAX_ATTRIBUTES}")));
            }
        }
        Ok((declared, plain))
    }

    fn value(&mut self) -> Option<Cow<'a, str>> {
        let quote = self.rest().bytes().next().filter(|byte| b"\"'".contains(byte))?;
        self.at += 1;
        let (raw, _) = self.rest().split_once(char::from(quote)).filter(|(raw, _)| !raw.contains('<'))?;
        self.at += raw.len() + 1;
        // Literal white space reads as a space; a character reference to it does not.
        if raw.contains('\n') || raw.contains('\t') {
            return unescape(&raw.replace(['\t', '\n'], " ")).map(|value| Cow::Owned(value.into_owned()));
        }
        unescape(raw)
    }

    fn resolved(
        &self,
        name: Name<'a>,
        declared: Vec<(&'a str, Cow<'a, str>)>,
        plain: Vec<(Name<'a>, Cow<'a, str>)>,
        parent: Option<usize>,
    ) -> Result<Element<'a>, Malformed> {
        let unknown = || self.error("namespace", "a prefix that is not declared");
        let namespace = self.document.resolve(name.prefix, &declared, parent).ok_or_else(unknown)?;
        let mut attributes: Vec<Attribute<'a>> = Vec::with_capacity(plain.len());
        for (name, value) in plain {
            let namespace = match name.prefix {
                "" => Cow::Borrowed(""),
                prefix => self.document.resolve(prefix, &declared, parent).ok_or_else(unknown)?,
            };
            if attributes.iter().any(|a| a.name.local == name.local && a.namespace == namespace) {
                return Err(self.error("attribute", format!("{} stands there twice", name.local)));
            }
            attributes.push(Attribute { name, namespace, value });
        }
        Ok(Element { name, namespace, declared, attributes, children: Vec::new(), parent })
    }

    fn close(&mut self) -> Result<(), Malformed> {
        let name = self.name()?;
        self.white_space();
        let open = self.open.pop().filter(|at| self.document.elements[*at].name == name);
        if open.is_none() || !self.eat(">") {
            return Err(self.error("element", "it ends another than the one that began"));
        }
        Ok(())
    }

    fn text(&mut self) -> Result<(), Malformed> {
        let rest = self.rest();
        let raw = &rest[..rest.find('<').unwrap_or(rest.len())];
        self.at += raw.len();
        if self.rest().is_empty() || raw.contains("]]>") {
            return Err(self.error("text", "the document ends in it, or it ends a section that never began"));
        }
        let text =
            unescape(raw).ok_or_else(|| self.error("text", "a character or entity that is not allowed"))?;
        let parent = *self.open.last().expect("text stands in an element");
        self.document.elements[parent].children.push(Node::Text(text));
        Ok(())
    }
}

fn allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..) && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Where the first character stands that XML does not allow (XML 1.0, 2.2).
fn forbidden(text: &str) -> Option<usize> {
    // Control characters are looked for without leaving early, which the compiler makes fast.
    let control = text.bytes().fold(false, |found, byte| found | (byte < b' ' && !is_space(byte)));
    if !control && !text.contains('\u{fffe}') && !text.contains('\u{ffff}') {
        return None;
    }
    text.char_indices().find(|(_, c)| !allowed(*c)).map(|(at, _)| at)
}

/// The characters that are meant, if all are allowed (XML 1.0, 4.1).
fn unescape(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('&') {
        return Some(Cow::Borrowed(raw));
    }
    let mut parts = raw.split('&');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, text) = part.split_once(';')?;
        out.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => reference(entity.strip_prefix('#')?).filter(|c| allowed(*c))?,
        });
        out.push_str(text);
    }
    Some(Cow::Owned(out))
}

fn reference(number: &str) -> Option<char> {
    let (digits, radix) = match number.strip_prefix('x') {
        Some(hex) => (hex, 16),
        None => (number, 10),
    };
    let plain = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    char::from_u32(u32::from_str_radix(digits, radix).ok().filter(|_| plain)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rims_do_not_need_is_refused() {
        for bad in [
            "",
            "text",
            "<a/>",
            "<a></b>",
            "<a>",
            "<a></a><b></b>",
            "<a></a>text",
            "<!DOCTYPE a><a></a>",
            "<?pi?><a></a>",
            "<a><!-- c --></a>",
            "<a><![CDATA[x]]></a>",
            "<a>]]></a>",
            "<a>&nbsp;</a>",
            "<a>&#0;</a>",
            "<a>&#xD800;</a>",
            "<a>&amp</a>",
            "<a>\u{1}</a>",
            "<a b></a>",
            "<a b=c></a>",
            "<a b=\"<\"></a>",
            "<a b=\"1\" b=\"2\"></a>",
            "<a b=\"1\"c=\"2\"></a>",
            "<p:a></p:a>",
            "<a xmlns:p=\"\"></a>",
            "<a xmlns=\"\"></a>",
            "<a xml:lang=\"en\"></a>",
            "<a xmlns:p=\"u\" xmlns:q=\"u\" p:b=\"1\" q:b=\"2\"></a>",
            "<a:b:c></a:b:c>",
            "<1></1>",
            "<?xml version=\"1.1\"?><a></a>",
            "<?xml version=\"1.0\" encoding=\"UTF-16\"?><a></a>",
        ] {
            assert!(Document::parse(bad).is_err(), "{bad}");
        }
        let deep = format!("{}{}", "<a>".repeat(MAX_DEPTH + 1), "</a>".repeat(MAX_DEPTH + 1));
        assert!(Document::parse(&deep).is_err());
        let broad = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS));
        assert!(Document::parse(&broad).is_err());
    }

    #[test]
    fn names_and_values_read_as_they_are_meant() {
        let text = "<?xml version='1.0' encoding='UTF-8'?>\n<a xmlns='d' xmlns:p='u'\n p:b = 'x\ty&#9;&lt;' c=\"'\"><p:d/>&amp;&#x41;</a>\n";
        let document = Document::parse(text).expect("plain XML");
        let root = document.root();
        assert!(root.is("d", "a") && document.elements[1].is("u", "d"));
        assert_eq!(root.attribute_of("u", "b"), Some("x y\t<"));
        assert_eq!(root.attribute("c"), Some("'"));
        assert!(document.children(root).is_none(), "there is text beside the element");
        assert!(matches!(&root.children[1], Node::Text(text) if text == "&A"));
    }
}
