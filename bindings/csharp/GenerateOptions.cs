// SPDX-License-Identifier: Apache-2.0
using System;
using System.Collections.Generic;
using Gptq.Native;

namespace Gptq {

/// <summary>How the hidden states become one vector.</summary>
public enum Pooling {
  None = Constants.GPTQ_POOL_NONE,
  Last = Constants.GPTQ_POOL_LAST,
  Mean = Constants.GPTQ_POOL_MEAN
}

/// <summary>How to generate. All zero: greedy, until the end token or the end of the context. gptq.h says what the numbers mean.</summary>
public sealed unsafe class GenerateOptions {
  public int MaxTokens, TopK;
  public float Temperature, TopP, MinP, RepeatPenalty, FrequencyPenalty, PresencePenalty;
  public float TopNSigma, TypicalP, TemperatureRange, TemperatureExponent, XtcProbability, XtcThreshold, MirostatTau, MirostatEta;
  public float DryMultiplier, DryBase;
  public int DryAllowedLength, DryWindow, PenaltyWindow;
  public ulong Seed;
  public IReadOnlyList<string> Stop;
  public IReadOnlyDictionary<int, float> Bias;
  /// <summary>No repeat goes over a token with one of these characters; null = newline : " *</summary>
  public string DryBreakers;
  /// <summary>Of the same model; null = any text.</summary>
  public Constraint Constraint;
  /// <summary>Phrases that never come: of Model.Banned.</summary>
  public Constraint Banned;
  /// <summary>Other than None: generates nothing, but makes a vector for Session.Embedding.</summary>
  public Pooling Pooling;
  public bool RandomSeed, ModelDefaults, IgnoreEos, PrefillOnly, KeepStop, ContinueText, Logits, LogProbs, Speculate, Marked, Background;

  static uint Flag(bool wanted, int flag) { return wanted ? (uint)flag : 0; }

  /// <summary>constraint and banned are what Constraint and Banned are where those are not null, held by the caller.</summary>
  internal gptq_generate_params* Parameters(Arena arena, IntPtr constraint, IntPtr banned) {
    var sampling = (gptq_sampling*)arena.Bytes(sizeof(gptq_sampling));
    *sampling = gptq_sampling.New();
    sampling->flags = Flag(RandomSeed, Constants.GPTQ_SAMPLE_RANDOM_SEED) | Flag(ModelDefaults, Constants.GPTQ_SAMPLE_MODEL_DEFAULTS);
    sampling->temperature = Temperature;
    sampling->top_k = TopK;
    sampling->top_p = TopP;
    sampling->min_p = MinP;
    sampling->repeat_penalty = RepeatPenalty;
    sampling->penalty_window = GptqException.Count(PenaltyWindow, "PenaltyWindow");
    sampling->seed = Seed;
    sampling->frequency_penalty = FrequencyPenalty;
    sampling->presence_penalty = PresencePenalty;
    sampling->dry_multiplier = DryMultiplier;
    sampling->dry_base = DryBase;
    sampling->dry_allowed_length = GptqException.Count(DryAllowedLength, "DryAllowedLength");
    sampling->dry_window = GptqException.Count(DryWindow, "DryWindow");
    sampling->top_n_sigma = TopNSigma;
    sampling->typical_p = TypicalP;
    sampling->temperature_range = TemperatureRange;
    sampling->temperature_exponent = TemperatureExponent;
    sampling->xtc_probability = XtcProbability;
    sampling->xtc_threshold = XtcThreshold;
    sampling->mirostat_tau = MirostatTau;
    sampling->mirostat_eta = MirostatEta;
    sampling->dry_breakers.ptr = arena.TextOrNull(DryBreakers, out sampling->dry_breakers.size);
    if (Bias != null) {
      sampling->bias = (gptq_logit_bias*)arena.Bytes(sizeof(gptq_logit_bias) * Bias.Count);
      foreach (KeyValuePair<int, float> one in Bias) {
        gptq_logit_bias* to = sampling->bias + (int)sampling->n_bias;
        to->token = one.Key;
        to->bias = one.Value;
        sampling->n_bias = sampling->n_bias + 1;
      }
    }
    var parameters = (gptq_generate_params*)arena.Bytes(sizeof(gptq_generate_params));
    *parameters = gptq_generate_params.New();
    parameters->sampling = sampling;
    parameters->max_tokens = GptqException.Count(MaxTokens, "MaxTokens");
    parameters->flags = Flag(IgnoreEos, Constants.GPTQ_GEN_IGNORE_EOS) | Flag(PrefillOnly || Pooling != Pooling.None, Constants.GPTQ_GEN_PREFILL_ONLY) |
                        Flag(KeepStop, Constants.GPTQ_GEN_KEEP_STOP) | Flag(ContinueText, Constants.GPTQ_GEN_CONTINUE_TEXT) |
                        Flag(Logits, Constants.GPTQ_GEN_LOGITS) | Flag(Speculate, Constants.GPTQ_GEN_SPECULATE) |
                        Flag(LogProbs, Constants.GPTQ_GEN_LOGPROBS) | Flag(Marked, Constants.GPTQ_GEN_MARKED) |
                        Flag(Background, Constants.GPTQ_GEN_BACKGROUND);
    parameters->pooling = (int)Pooling;
    if (Constraint != null) parameters->constraint = constraint;
    if (Banned != null) parameters->banned = banned;
    if (Stop != null) {
      parameters->stop = arena.Strings(Stop);
      parameters->n_stop = (UIntPtr)Stop.Count;
    }
    return parameters;
  }
}

}
