//! The KV cache: pages of 16 tokens, and sequences as lists of them.

use crate::kernels::{PAGE, Page, PageShape, Paged};

/// The pages of one sequence, in the order of its positions: numbers of pages in a [`Cache`].
#[derive(Default)]
pub(crate) struct Table(Vec<u32>);

impl Table {
    /// Tokens that its pages have room for.
    pub(crate) fn room(&self) -> usize {
        self.0.len() * PAGE
    }
}

/// Pages, of which sequences take what they need.
pub(crate) struct Cache {
    shape: PageShape,
    pages: Vec<Page>,
}

impl Cache {
    pub(crate) fn new(shape: PageShape) -> Self {
        Self { shape, pages: Vec::new() }
    }

    /// Gives a sequence pages for `tokens` in all.
    pub(crate) fn grow(&mut self, table: &mut Table, tokens: usize) {
        while table.room() < tokens {
            let page = u32::try_from(self.pages.len()).expect("memory ends before pages do");
            self.pages.push(Page::new(self.shape));
            table.0.push(page);
        }
    }

    /// Writes the keys and values of the token at `position` in one layer.
    pub(crate) fn write(
        &mut self,
        table: &Table,
        layer: usize,
        position: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let page = table.0[position / PAGE] as usize;
        self.pages[page].write(self.shape, layer, position % PAGE, keys, values);
    }

    /// A sequence's pages, to be attended to.
    pub(crate) fn sequence<'a>(&'a self, table: &'a Table) -> Paged<'a> {
        Paged { pages: &self.pages, table: &table.0, shape: self.shape }
    }
}
