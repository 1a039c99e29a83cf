// SPDX-License-Identifier: Apache-2.0
use crate::source::strings;
use crate::{sys, Constraint};
use std::ptr::{null, null_mut};

/// How the hidden states become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(i32)]
pub enum Pooling {
    #[default]
    None = sys::GPTQ_POOL_NONE,
    Last = sys::GPTQ_POOL_LAST,
    Mean = sys::GPTQ_POOL_MEAN,
}

/// How to generate. All zero: greedy, until the end token or the end of the context.
#[derive(Clone, Debug, Default)]
pub struct Generate {
    pub max_tokens: u32,
    pub temperature: f32,
    pub top_k: i32,
    pub top_p: f32,
    pub min_p: f32,
    pub repeat_penalty: f32,
    pub penalty_window: u32,
    pub frequency_penalty: f32,
    pub presence_penalty: f32,
    pub dry_multiplier: f32,
    pub dry_base: f32,
    pub dry_allowed_length: u32,
    pub dry_window: u32,
    pub top_n_sigma: f32,
    pub typical_p: f32,
    pub temperature_range: f32,
    pub temperature_exponent: f32,
    pub xtc_probability: f32,
    pub xtc_threshold: f32,
    pub mirostat_tau: f32,
    pub mirostat_eta: f32,
    pub seed: u64,
    /// Added to the logits of these tokens.
    pub bias: Vec<(i32, f32)>,
    pub stop: Vec<String>,
    /// No repeat goes over a token with one of these characters; `None` = newline : " *
    pub dry_breakers: Option<String>,
    /// Of the same model.
    pub constraint: Option<Constraint>,
    /// Phrases that never come: [`Model::banned`](crate::Model::banned).
    pub banned: Option<Constraint>,
    /// Other than `None`: generates nothing, but makes a vector for [`Session::embedding`](crate::Session::embedding).
    pub pooling: Pooling,
    /// `gptq::sys::GPTQ_GEN_*`
    pub flags: i32,
    /// `gptq::sys::GPTQ_SAMPLE_*`
    pub sampling_flags: i32,
}

impl Generate {
    pub(crate) fn with<R>(&self, f: impl FnOnce(&sys::gptq_generate_params) -> R) -> R {
        let bias: Vec<_> = self.bias.iter().map(|&(token, bias)| sys::gptq_logit_bias { token, bias }).collect();
        let sampling = sys::gptq_sampling {
            flags: self.sampling_flags as u32,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            penalty_window: self.penalty_window,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            dry_multiplier: self.dry_multiplier,
            dry_base: self.dry_base,
            dry_allowed_length: self.dry_allowed_length,
            dry_window: self.dry_window,
            top_n_sigma: self.top_n_sigma,
            typical_p: self.typical_p,
            temperature_range: self.temperature_range,
            temperature_exponent: self.temperature_exponent,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            mirostat_tau: self.mirostat_tau,
            mirostat_eta: self.mirostat_eta,
            seed: self.seed,
            bias: bias.as_ptr(),
            n_bias: bias.len(),
            dry_breakers: sys::gptq_string {
                ptr: self.dry_breakers.as_ref().map_or(null(), |text| text.as_ptr().cast()),
                size: self.dry_breakers.as_ref().map_or(0, String::len),
            },
            ..Default::default()
        };
        let stop = strings(&self.stop);
        let prefill = if self.pooling == Pooling::None { 0 } else { sys::GPTQ_GEN_PREFILL_ONLY };
        f(&sys::gptq_generate_params {
            flags: (self.flags | prefill) as u32,
            pooling: self.pooling as i32,
            banned: self.banned.as_ref().map_or(null_mut(), Constraint::pointer),
            sampling: &sampling,
            stop: stop.as_ptr(),
            n_stop: stop.len(),
            max_tokens: self.max_tokens,
            constraint: self.constraint.as_ref().map_or(null_mut(), Constraint::pointer),
            ..Default::default()
        })
    }
}
