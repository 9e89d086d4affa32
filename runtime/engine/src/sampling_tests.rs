use super::*;

fn sampler(temperature: f32, top_p: f32, seed: u64) -> Sampler {
    Sampler::new(Sampling { temperature, top_p, seed, ..Sampling::greedy() }, &[]).expect("in range")
}

fn draws(temperature: f32, top_p: f32, seed: u64, logits: &[f32]) -> Vec<u32> {
    let mut sampler = sampler(temperature, top_p, seed);
    (0..200).map(|_| sampler.choose(logits).expect("finite")).collect()
}

#[test]
fn philox_matches_the_published_vectors() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
}

#[test]
fn the_same_seed_gives_the_same_tokens_and_another_seed_others() {
    let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.3).collect();
    assert_eq!(draws(1.0, 0.9, 7, &logits), draws(1.0, 0.9, 7, &logits));
    assert_ne!(draws(1.0, 0.9, 7, &logits), draws(1.0, 0.9, 8, &logits));
}

#[test]
fn temperature_zero_takes_the_likeliest_and_the_lowest_id_among_equals() {
    assert_eq!(draws(0.0, 1.0, 1, &[0.5, 2.0, 2.0, -1.0])[..3], [1, 1, 1]);
}

#[test]
fn temperatures_of_which_there_is_no_inverse_take_the_likeliest() {
    let logits = [0.5, 2.0, 2.0, -1.0];
    for bits in [1u32, 2, 1000, 0x001f_ffff, 0x0020_0000, 0x0020_0001, f32::MIN_POSITIVE.to_bits()] {
        let temperature = f32::from_bits(bits);
        for top_p in [1.0, 0.5, f32::MIN_POSITIVE] {
            let found = draws(temperature, top_p, 1, &logits);
            assert!(found.iter().all(|token| [1, 2].contains(token)), "{temperature:e}");
            assert!(temperature.recip().is_finite() || found[0] == 1, "the lowest id among equals");
        }
    }
}

/// Each parameter at both ends of its range, with logits as they come and at their worst.
#[test]
fn no_parameters_in_range_and_no_logits_make_a_choice_panic() {
    let least = f32::from_bits(1);
    let rows: [&[f32]; 7] = [
        &[0.0; 5],
        &[-0.0, 0.0, -0.0, 0.0, 0.0],
        &[f32::MAX, f32::MIN, 0.0, 1.0, f32::MAX],
        &[f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, -1e-45],
        &[f32::MIN; 5],
        &[1e-45, -1e-45, 0.0, 1e-45, 0.0],
        &[88.0, 87.0, -88.0, 3e38, -3e38],
    ];
    let mut choices = 0;
    for temperature in [0.0, -0.0, least, f32::MIN_POSITIVE, 1.0, 2.0] {
        for (top_p, top_k, min_p) in
            [(1.0, 0, 0.0), (least.max(f32::MIN_POSITIVE), 1, 1.0), (0.3, u32::MAX, least)]
        {
            for repetition_penalty in [0.5, 1.0, 2.0] {
                for penalty in [-2.0, -0.0, 2.0] {
                    let sampling = Sampling {
                        temperature,
                        top_p,
                        top_k,
                        min_p,
                        repetition_penalty,
                        presence_penalty: penalty,
                        frequency_penalty: -penalty,
                        seed: u64::MAX,
                    };
                    for row in rows {
                        let mut sampler = Sampler::new(sampling, &[]).expect("in range");
                        sampler = sampler.with_bias(&[(1, 100.0), (2, -100.0)]);
                        for _ in 0..4 {
                            choices += usize::from(sampler.choose(row).is_ok_and(|token| token < 5));
                        }
                    }
                }
            }
        }
    }
    assert!(choices > 3_000, "most of them have a choice: {choices}");
}

#[test]
fn top_p_cuts_exactly_at_its_mass() {
    // Probabilities 0.5, 0.25, 0.125, 0.125.
    let logits =
        [0.0f32, -std::f32::consts::LN_2, -2.0 * std::f32::consts::LN_2, -2.0 * std::f32::consts::LN_2];
    let kinds = |top_p| {
        let mut seen = draws(1.0, top_p, 3, &logits);
        seen.sort_unstable();
        seen.dedup();
        seen
    };
    assert_eq!(kinds(0.4), [0]);
    assert_eq!(kinds(0.6), [0, 1]);
    assert_eq!(kinds(0.8), [0, 1, 2]);
    assert_eq!(kinds(1.0), [0, 1, 2, 3]);
    assert_eq!(kinds(f32::MIN_POSITIVE), [0]);
}

/// The tokens that 300 draws at temperature 1 find.
fn kinds(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
    let mut sampler = Sampler::new(Sampling { temperature: 1.0, ..sampling }, &[]).expect("in range");
    let mut seen: Vec<u32> = (0..300).map(|_| sampler.choose(logits).expect("finite")).collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

#[test]
fn top_k_keeps_the_likeliest_and_the_lowest_ids_among_equals() {
    let logits = [0.0f32, 0.5, 0.0, 0.5, 0.0];
    let top_k = |top_k| kinds(Sampling { top_k, ..Sampling::greedy() }, &logits);
    assert_eq!(top_k(1), [1]);
    assert_eq!(top_k(2), [1, 3]);
    assert_eq!(top_k(3), [0, 1, 3]);
    assert_eq!(top_k(5), [0, 1, 2, 3, 4]);
    assert_eq!(top_k(1000), [0, 1, 2, 3, 4]);
    assert_eq!(top_k(0), [0, 1, 2, 3, 4], "off");
}

#[test]
fn min_p_cuts_at_its_share_of_the_likeliest() {
    // Half as likely, each.
    let logits: Vec<f32> = (0..4).map(|n| -std::f32::consts::LN_2 * n as f32).collect();
    let min_p = |min_p| kinds(Sampling { min_p, ..Sampling::greedy() }, &logits);
    assert_eq!(min_p(0.6), [0]);
    assert_eq!(min_p(0.49), [0, 1]);
    assert_eq!(min_p(0.2), [0, 1, 2]);
    assert_eq!(min_p(0.0), [0, 1, 2, 3]);
    // Of what top_k leaves, top_p takes its share: 2/3 of the two.
    let both = Sampling { top_k: 2, top_p: 0.6, ..Sampling::greedy() };
    assert_eq!(kinds(both, &logits), [0]);
    assert_eq!(kinds(Sampling { top_p: 0.7, ..both }, &logits), [0, 1]);
}

#[test]
fn penalties_of_the_answer_count_what_was_chosen() {
    let logits = [1.0f32, 0.9, 0.0];
    let chosen = |sampling: Sampling| {
        let mut sampler = Sampler::new(sampling, &[]).expect("in range");
        sampler.observe(&[0, 0, 0]); // a prompt, which does not count
        (0..5).map(|_| sampler.choose(&logits).expect("finite")).collect::<Vec<_>>()
    };
    let present = Sampling { presence_penalty: 0.5, ..Sampling::greedy() };
    assert_eq!(chosen(present), [0, 1, 0, 0, 0], "once for each token");
    let frequent = Sampling { frequency_penalty: 0.5, ..Sampling::greedy() };
    assert_eq!(chosen(frequent), [0, 1, 0, 1, 0], "each time; then both stand at zero and below");
}

#[test]
fn choices_of_one_seed_draw_other_numbers_and_the_first_those_of_the_seed() {
    let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 * 0.3).collect();
    let draws_of = |choice| {
        let mut sampler = sampler(1.0, 1.0, 7).for_choice(choice);
        (0..200).map(|_| sampler.choose(&logits).expect("finite")).collect::<Vec<_>>()
    };
    assert_eq!(draws_of(0), draws(1.0, 1.0, 7, &logits));
    assert_ne!(draws_of(1), draws_of(0));
    assert_ne!(draws_of(1), draws_of(2));
    assert_eq!(draws_of(2), draws_of(2));
}

#[test]
fn what_a_mask_forbids_is_never_drawn() {
    let mut mask = TokenMask::all(3);
    mask.forbid(1);
    for temperature in [0.0, 2.0] {
        let mut sampler = sampler(temperature, 1.0, 3).with_bias(&[(1, 100.0)]);
        assert!((0..200).all(|_| sampler.choose_among(&[0.0, 5.0, 1.0], Some(&mask)) != Ok(1)));
        mask.allow(1);
        assert!((0..200).any(|_| sampler.choose_among(&[0.0, 5.0, 1.0], Some(&mask)) == Ok(1)));
        mask.forbid(1);
    }
    mask.forbid_all();
    let nothing = sampler(1.0, 1.0, 3).choose_among(&[0.0; 3], Some(&mask));
    assert_eq!(nothing, Err(GenerateError::NothingAllowed));
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = [0.0f32, -std::f32::consts::LN_2];
    let mut sampler = sampler(1.0, 1.0, 42);
    let zeros = (0..6000).filter(|_| sampler.choose(&logits).expect("finite") == 0).count();
    assert!((3800..4200).contains(&zeros), "{zeros} of 6000 draws with probability 2/3");
}

#[test]
fn a_high_temperature_flattens_and_a_low_one_sharpens() {
    let logits = [1.0f32, 0.0];
    let ones = |temperature| draws(temperature, 1.0, 5, &logits).iter().filter(|&&id| id == 1).count();
    assert_eq!(ones(0.01), 0);
    assert!(ones(2.0) > ones(0.5));
}

#[test]
fn the_repetition_penalty_moves_on_but_spares_the_end_of_answer() {
    let sampling = Sampling { repetition_penalty: 1.5, ..Sampling::greedy() };
    let logits = [1.0f32, 0.9, 0.8, -1.0];
    let mut sampler = Sampler::new(sampling, &[]).expect("in range");
    let chosen: Vec<u32> = (0..4).map(|_| sampler.choose(&logits).expect("finite")).collect();
    assert_eq!(chosen, [0, 1, 2, 0], "each token once, then the likeliest of the penalised again");
    let mut sparing = Sampler::new(sampling, &[0]).expect("in range");
    assert_eq!(sparing.choose(&logits), Ok(0));
    assert_eq!(sparing.choose(&logits), Ok(0));
}

#[test]
fn the_repetition_penalty_forgets_what_left_its_window() {
    let sampling = Sampling { repetition_penalty: 1.5, ..Sampling::greedy() };
    let mut sampler = Sampler::new(sampling, &[]).expect("in range");
    sampler.observe(&[0]);
    sampler.observe(&vec![1; REPETITION_WINDOW]);
    assert_eq!(sampler.choose(&[1.0, 0.9]), Ok(0));
}

#[test]
fn what_is_not_a_number_is_an_error_and_never_a_token() {
    let mut sampler = sampler(0.7, 0.9, 1);
    assert_eq!(sampler.choose(&[0.0, f32::NAN]), Err(GenerateError::NotANumber));
    assert_eq!(sampler.choose(&[f32::NEG_INFINITY; 3]), Err(GenerateError::NotANumber));
    assert_eq!(sampler.choose(&[f32::INFINITY, 0.0]), Err(GenerateError::NotANumber));
    assert_eq!(sampler.choose(&[f32::NEG_INFINITY, 0.0]), Ok(1));
}

#[test]
fn parameters_out_of_range_are_refused_by_name() {
    let with = |edit: fn(&mut Sampling)| {
        let mut sampling = Sampling::default();
        edit(&mut sampling);
        match sampling.check() {
            Err(GenerateError::Parameter { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(with(|s| s.temperature = -0.1), "temperature");
    assert_eq!(with(|s| s.temperature = f32::NAN), "temperature");
    assert_eq!(with(|s| s.top_p = 0.0), "top_p");
    assert_eq!(with(|s| s.top_p = 1.1), "top_p");
    assert_eq!(with(|s| s.repetition_penalty = 0.0), "repetition_penalty");
    assert_eq!(with(|s| s.min_p = -0.1), "min_p");
    assert_eq!(with(|s| s.presence_penalty = 2.1), "presence_penalty");
    assert_eq!(with(|s| s.frequency_penalty = f32::NAN), "frequency_penalty");
}
