use super::*;

fn shape() -> Shape {
    Shape {
        width: 32,
        feed_width: 32,
        heads: 2,
        kv_heads: 1,
        head_len: 16,
        epsilon: 1e-5,
        query_scale: 0.25,
        vocabulary: 100,
        pages: 8,
        table_width: 3,
        rows: 4,
    }
}

fn row(token: u32, sequence: u32, position: u32) -> Row {
    Row { token, sequence, position }
}

fn refused(rows: &[Row], tables: &[&[u32]], choices: &[Choice]) -> &'static str {
    match check(&shape(), rows, tables, choices) {
        Err(DecodeError::Step { what, .. }) => what,
        Err(DecodeError::Sampling) => "sampling",
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_step_that_kernels_could_not_follow_is_refused_by_name() {
    let tables: &[&[u32]] = &[&[0, 1], &[7]];
    let good = [row(99, 0, 31), row(0, 1, 15)];
    let greedy = [Choice::greedy(), Choice::greedy()];
    assert_eq!(check(&shape(), &good, tables, &greedy), Ok(()));
    assert_eq!(refused(&[], tables, &[]), "rows");
    assert_eq!(refused(&[good[0]; 5], tables, &[]), "rows");
    assert_eq!(refused(&good[..1], tables, &greedy), "choices");
    assert_eq!(refused(&[row(100, 0, 0)], tables, &[]), "token");
    assert_eq!(refused(&[row(1, 2, 0)], tables, &[]), "sequence");
    assert_eq!(refused(&[row(1, 0, 32)], tables, &[]), "position");
    assert_eq!(refused(&[row(1, 0, u32::MAX)], tables, &[]), "position");
    assert_eq!(refused(&good, &[&[0, 8], &[7]], &[]), "page");
    assert_eq!(refused(&good, &[&[0, 1, 2, 3], &[7]], &[]), "pages of a sequence");
    assert_eq!(refused(&[row(1, 0, 3), row(2, 0, 3)], tables, &[]), "rows at one place of a page");
    assert_eq!(refused(&[row(1, 0, 3), row(2, 1, 3)], &[&[4], &[4]], &[]), "rows at one place of a page");
}

#[test]
fn choices_out_of_range_are_refused_by_name() {
    let with = |edit: fn(&mut Choice)| {
        let mut choice = Choice::greedy();
        edit(&mut choice);
        refused(&[row(1, 0, 0)], &[&[0]], &[choice])
    };
    assert_eq!(with(|choice| choice.temperature = f32::NAN), "sampling");
    assert_eq!(with(|choice| choice.top_p = 0.0), "sampling");
    assert_eq!(with(|choice| choice.penalty = 3.0), "sampling");
    assert_eq!(with(|choice| choice.recent = vec![1; 257].into()), "recent tokens");
    assert_eq!(with(|choice| choice.recent = vec![1, 1].into()), "times of one recent token");
    assert_eq!(with(|choice| choice.recent = vec![100].into()), "recent token");
}

#[test]
fn a_choice_lies_as_the_kernels_read_it() {
    let choice = Choice {
        temperature: 1.0,
        top_p: 0.5,
        penalty: 2.0,
        seed: 0x1122_3344_5566_7788,
        position: 9,
        choice: 3,
        recent: vec![4, 5].into(),
    };
    let bytes = choice.bytes(0x0a0b_0c0d);
    assert_eq!(bytes[..16], [0, 0, 0x80, 0x3f, 0, 0, 0, 0x3f, 0, 0, 0, 0x40, 2, 0, 0, 0]);
    assert_eq!(
        bytes[16..],
        [
            0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 9, 0, 0, 0, 0, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a,
            3, 0, 0, 0
        ]
    );
}
