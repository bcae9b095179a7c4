//! Ranks that are threads of this process.

use lapidary_collective::{CollectiveError, Ranks, threads};

/// What each of some ranks makes of a piece of work.
fn each<T: Send>(count: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let work = &work;
    std::thread::scope(|scope| {
        let start = |rank| scope.spawn(move || work(Ranks::new(move || Ok(rank)).unwrap()));
        let started: Vec<_> = threads(count).into_iter().map(start).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn sums_are_the_same_everywhere() {
    for count in [1, 2, 3, 5] {
        let sums = each(count, |ranks| {
            let mut numbers: Vec<f32> = (0..1000).map(|i| (ranks.rank() as f32 + 0.1) * (i as f32 + 0.3)).collect();
            // One that goes on while another is asked for.
            let early = ranks.begin_sum(vec![ranks.rank() as f32; 3]);
            ranks.sum(&mut numbers).unwrap();
            let mut double = [1e-12, ranks.rank() as f64];
            ranks.sum_f64(&mut double).unwrap();
            ranks.wait_for_all().unwrap();
            (early.wait().unwrap(), numbers, double)
        });
        let ranks = (0..count).sum::<usize>() as f32;
        assert_eq!(sums[0].0, [ranks; 3]);
        assert!((sums[0].1[7] - (ranks + 0.1 * count as f32) * 7.3).abs() < 1e-3);
        assert_eq!(sums[0].2, [1e-12 * count as f64, f64::from(ranks)]);
        assert!(sums.iter().all(|sum| *sum == sums[0]));
    }
}

#[test]
fn bytes_reach_those_they_are_for() {
    let found = each(4, |ranks| {
        let bytes = ranks.broadcast(2, vec![ranks.rank() as u8; 5 * ranks.rank()]).unwrap();
        (bytes, ranks.spread(1, &[1, 3], vec![ranks.rank() as u8; 2]).unwrap())
    });
    assert!(found.iter().all(|(bytes, _)| *bytes == [2; 10]));
    let spread: Vec<&Vec<u8>> = found.iter().map(|(_, spread)| spread).collect();
    assert_eq!(spread, [&[0; 2], &[1; 2], &[2; 2], &[1; 2]]);
}

#[test]
fn alone_there_is_nothing_to_exchange() {
    let ranks = Ranks::alone();
    let mut numbers = [1.5, 2.5];
    ranks.sum(&mut numbers).unwrap();
    assert_eq!(ranks.begin_sum(numbers.to_vec()).wait().unwrap(), [1.5, 2.5]);
    assert_eq!(ranks.broadcast(0, vec![3]).unwrap(), [3]);
    assert!(ranks.is_alone() && ranks.is_first() && ranks.wait_for_all().is_ok());
}

#[test]
fn a_rank_that_is_gone_is_an_error_for_the_others() {
    let found = each(3, |ranks| match ranks.rank() {
        1 => Err(CollectiveError::Gone),
        _ => ranks.sum(&mut [1.0]).and_then(|()| ranks.sum(&mut [1.0])),
    });
    assert_eq!(found, [Err(CollectiveError::Gone), Err(CollectiveError::Gone), Err(CollectiveError::Gone)]);
}

#[test]
fn what_does_not_open_says_why() {
    let open = || Err::<lapidary_collective::Threads, _>(CollectiveError::Start("no".into()));
    assert_eq!(Ranks::new(open).err(), Some(CollectiveError::Start("no".into())));
}
