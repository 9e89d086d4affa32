//! Canonical XML 1.1 without comments (W3C, `http://www.w3.org/2006/12/xml-c14n11`), of a document or of one element.
//!
//! What distinguishes 1.1 from 1.0 are `xml:` attributes, which [`super::xml`] refuses.

use std::cmp::Ordering;

use super::xml::{Document, Node};

/// The canonical form of the element at `apex` with all that is in it, except the element at `without`. Namespaces that
/// are in force at the apex are written there, wherever they were declared (C14N 1.1, 2.3).
pub(super) fn canonical(document: &Document<'_>, apex: usize, without: Option<usize>) -> Vec<u8> {
    let mut writer = Writer { document, without, scope: Vec::new(), out: Vec::with_capacity(32 * 1024) };
    let namespaces = document.in_scope(apex);
    writer.element(apex, namespaces);
    writer.out
}

struct Writer<'d, 'a> {
    document: &'d Document<'a>,
    without: Option<usize>,
    /// Namespaces that were written above, the nearest last.
    scope: Vec<(&'d str, &'d str)>,
    out: Vec<u8>,
}

impl<'d> Writer<'d, '_> {
    /// Recursion ends at the depth to which documents are read.
    fn element(&mut self, at: usize, mut namespaces: Vec<(&'d str, &'d str)>) {
        let element = &self.document.elements[at];
        let outer = self.scope.len();
        namespaces.retain(|(prefix, uri)| {
            let written = self.scope[..outer].iter().rev().find(|(known, _)| known == prefix);
            written.is_none_or(|(_, above)| above != uri)
        });
        namespaces.sort_unstable();
        self.put("<");
        self.name(element.name.prefix, element.name.local);
        for (prefix, uri) in &namespaces {
            self.put(if prefix.is_empty() { " xmlns" } else { " xmlns:" });
            self.put(prefix);
            self.value(uri);
        }
        self.scope.extend(namespaces);
        let mut attributes: Vec<_> = element.attributes.iter().collect();
        // Most attributes are in no namespace. Comparing two empty texts calls memcmp on an address that is not mapped,
        // which costs as much as all else here.
        attributes.sort_unstable_by(|a, b| {
            let spaces = if a.namespace.len() + b.namespace.len() == 0 {
                Ordering::Equal
            } else {
                a.namespace.cmp(&b.namespace)
            };
            spaces.then_with(|| a.name.local.cmp(b.name.local))
        });
        for attribute in attributes {
            self.put(" ");
            self.name(attribute.name.prefix, attribute.name.local);
            self.value(&attribute.value);
        }
        self.put(">");
        for node in &element.children {
            match node {
                Node::Element(child) if Some(*child) == self.without => {}
                Node::Element(child) => {
                    let declared = &self.document.elements[*child].declared;
                    self.element(*child, declared.iter().map(|(prefix, uri)| (*prefix, &uri[..])).collect());
                }
                Node::Text(text) => self.escaped(text, |byte| match byte {
                    b'&' => Some("&amp;"),
                    b'<' => Some("&lt;"),
                    b'>' => Some("&gt;"),
                    b'\r' => Some("&#xD;"),
                    _ => None,
                }),
            }
        }
        self.put("</");
        self.name(element.name.prefix, element.name.local);
        self.put(">");
        self.scope.truncate(outer);
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn name(&mut self, prefix: &str, local: &str) {
        if !prefix.is_empty() {
            self.put(prefix);
            self.put(":");
        }
        self.put(local);
    }

    fn value(&mut self, value: &str) {
        self.put("=\"");
        self.escaped(value, |byte| match byte {
            b'&' => Some("&amp;"),
            b'<' => Some("&lt;"),
            b'"' => Some("&quot;"),
            b'\t' => Some("&#x9;"),
            b'\n' => Some("&#xA;"),
            b'\r' => Some("&#xD;"),
            _ => None,
        });
        self.put("\"");
    }

    fn escaped(&mut self, text: &str, escape: impl Fn(u8) -> Option<&'static str>) {
        // Most text holds nothing to escape: looking through all of it is faster than stopping early.
        if !text.bytes().fold(false, |found, byte| found | escape(byte).is_some()) {
            return self.put(text);
        }
        for byte in text.bytes() {
            match escape(byte) {
                Some(entity) => self.put(entity),
                None => self.out.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::xml::line_ends;
    use super::*;

    fn whole(text: &str) -> String {
        let text = line_ends(text.as_bytes()).expect("text");
        let document = Document::parse(&text).expect("XML");
        String::from_utf8(canonical(&document, 0, None)).expect("text")
    }

    /// The examples of Canonical XML 1.1, 3.2 to 3.4, as far as RIMs may hold what is in them.
    #[test]
    fn the_standards_examples_come_out_as_it_says() {
        let white = "<doc>\n   <clean>   </clean>\n   <mixed>\n      A\n      <clean>   </clean>\n   </mixed>\n</doc>";
        assert_eq!(whole(&format!("<?xml version=\"1.0\"?>\n\n{white}\n")), white);
        assert_eq!(
            whole(
                "<doc><e1   /><e2   ></e2><e3   name = \"elem3\"   id=\"elem3\"   /><e4   name=\"elem4\"   id=\"elem4\"   ></e4><e5 a:attr=\"out\" b:attr=\"sorted\" attr2=\"all\" attr=\"I'm\" xmlns:b=\"http://www.ietf.org\" xmlns:a=\"http://www.w3.org\" xmlns=\"http://example.org\"/></doc>"
            ),
            "<doc><e1></e1><e2></e2><e3 id=\"elem3\" name=\"elem3\"></e3><e4 id=\"elem4\" name=\"elem4\"></e4><e5 xmlns=\"http://example.org\" xmlns:a=\"http://www.w3.org\" xmlns:b=\"http://www.ietf.org\" attr=\"I'm\" attr2=\"all\" b:attr=\"sorted\" a:attr=\"out\"></e5></doc>"
        );
        assert_eq!(
            whole(
                "<doc><text>First line&#x0d;&#10;Second line</text><value>&#x32;</value><compute expr='value>\"0\" &amp;&amp; value&lt;\"10\" ?\"valid\":\"error\"'>valid</compute></doc>"
            ),
            "<doc><text>First line&#xD;\nSecond line</text><value>2</value><compute expr=\"value>&quot;0&quot; &amp;&amp; value&lt;&quot;10&quot; ?&quot;valid&quot;:&quot;error&quot;\">valid</compute></doc>"
        );
    }

    #[test]
    fn a_namespace_is_written_once_and_again_only_where_it_changes() {
        assert_eq!(
            whole("<a:x xmlns:a='1'><a:y xmlns:a='1'><a:z xmlns:a='2'/></a:y></a:x>"),
            "<a:x xmlns:a=\"1\"><a:y><a:z xmlns:a=\"2\"></a:z></a:y></a:x>"
        );
    }

    #[test]
    fn a_part_carries_the_namespaces_of_the_whole() {
        let document =
            Document::parse("<a xmlns='d' xmlns:p='u'>\n<b xmlns:q='v'>t</b><c/></a>").expect("XML");
        let part = canonical(&document, 1, None);
        assert_eq!(part, b"<b xmlns=\"d\" xmlns:p=\"u\" xmlns:q=\"v\">t</b>");
        let whole = canonical(&document, 0, Some(1));
        assert_eq!(whole, b"<a xmlns=\"d\" xmlns:p=\"u\">\n<c></c></a>");
    }

    #[test]
    fn lines_end_in_one_way() {
        assert_eq!(whole("<a>\r\nx\ry\n</a>\r\n"), "<a>\nx\ny\n</a>");
    }
}
