//! Gradients on their way between ranks, while the backward pass goes on.
//!
//! Parameters lie in buckets, in the order in which a backward pass comes to them, from the last to the first. As soon as
//! all gradients of a bucket are there its sum over the ranks begins, so that the exchange of the upper layers overlaps
//! with the computation of the lower ones (Li et al., "PyTorch distributed", 2006.15704, section 3.2). A sum begins only
//! after those of all buckets before it, so that all ranks agree on their order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::{Module, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use lapidary_collective::{CollectiveError, Pending, Ranks};
use lapidary_models::parameters::{self, GradientMap};
use lapidary_ops::Watcher;

/// Numbers of a bucket, but for a parameter that is larger: 256 KiB. A small network then has several.
const BUCKET: usize = 1 << 16;

/// Where a parameter's gradient is.
#[derive(Clone, Copy)]
struct Place {
    bucket: usize,
    offset: usize,
    elements: usize,
    /// Where its bucket says whether there is one.
    flag: usize,
}

struct State {
    /// Gradients, then for each parameter 1 if it has one.
    buckets: Vec<Vec<f32>>,
    /// Gradients that a bucket waits for.
    missing: Vec<usize>,
    begun: Vec<Pending>,
}

/// The gradients of a step.
pub(crate) struct Exchange<'a> {
    ranks: &'a Ranks,
    places: HashMap<ParamId, Place>,
    state: Arc<Mutex<State>>,
}

impl State {
    /// Begins the sums of all that is complete.
    fn begin(&mut self, ranks: &Ranks) {
        while self.missing.get(self.begun.len()) == Some(&0) {
            let bucket = std::mem::take(&mut self.buckets[self.begun.len()]);
            self.begun.push(ranks.begin_sum(bucket));
        }
    }
}

impl<'a> Exchange<'a> {
    /// For the gradients of a step, `before` of which are those of the micro-batches before the last.
    pub fn new<M: Module>(model: &M, ranks: &'a Ranks, before: &GradientMap) -> Self {
        let mut trained = Vec::new();
        parameters::visit(model, &mut |parameter| {
            if parameter.trained {
                trained.push((parameter.id, parameter.shape.iter().product::<usize>()));
            }
        });
        let mut places = HashMap::new();
        let (mut buckets, mut missing): (Vec<Vec<f32>>, Vec<usize>) = (Vec::new(), Vec::new());
        for &(id, elements) in trained.iter().rev() {
            if buckets.last().is_none_or(|bucket| bucket.len() + elements > BUCKET) {
                buckets.push(Vec::new());
                missing.push(0);
            }
            let bucket = buckets.len() - 1;
            let offset = buckets[bucket].len();
            match before.get(&id) {
                Some(gradient) => buckets[bucket].extend(parameters::elements(gradient.clone())),
                None => buckets[bucket].resize(offset + elements, 0.0),
            }
            places.insert(id, Place { bucket, offset, elements, flag: missing[bucket] });
            missing[bucket] += 1;
        }
        for (id, _) in &trained {
            let place = places.get_mut(id).expect("each has been given one");
            place.flag += buckets[place.bucket].len();
        }
        for (bucket, parameters) in buckets.iter_mut().zip(&missing) {
            bucket.resize(bucket.len() + parameters, 0.0);
        }
        for id in before.keys() {
            if let Some(place) = places.get(id) {
                buckets[place.bucket][place.flag] = 1.0;
            }
        }
        Self { ranks, places, state: Arc::new(Mutex::new(State { buckets, missing, begun: Vec::new() })) }
    }

    /// The model, whose gradients are taken as they come to be. It is the same model, but for its place in the graph.
    pub fn watch<M: Module>(&self, model: M) -> M {
        parameters::watch(model, &|id| {
            let place = *self.places.get(&id)?;
            let (state, ranks) = (self.state.clone(), self.ranks.clone());
            Some(Watcher::new(move |gradient| {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                let bucket = &mut state.buckets[place.bucket];
                let sums = &mut bucket[place.offset..place.offset + place.elements];
                sums.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                bucket[place.flag] = 1.0;
                state.missing[place.bucket] -= 1;
                state.begin(&ranks);
            }))
        })
    }

    /// After the backward pass: the sums of all ranks' gradients. A parameter that took no part on any rank has none.
    ///
    /// # Errors
    /// Another rank is gone.
    pub fn finish(self, device: &Device) -> Result<GradientMap, CollectiveError> {
        let begun = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.missing.fill(0);
            state.begin(self.ranks);
            std::mem::take(&mut state.begun)
        };
        let buckets: Vec<Vec<f32>> = begun.into_iter().map(Pending::wait).collect::<Result<_, _>>()?;
        let mut gradients = GradientMap::new();
        for (id, place) in self.places {
            let bucket = &buckets[place.bucket];
            if bucket[place.flag] > 0.0 {
                let numbers = bucket[place.offset..place.offset + place.elements].to_vec();
                gradients.insert(id, Tensor::from_data(TensorData::new(numbers, [place.elements]), device));
            }
        }
        Ok(gradients)
    }
}
