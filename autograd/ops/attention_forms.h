// The implementations of attention. attention.cpp holds their table; the first row that fits a call runs it.
#pragma once

#include <cstdint>

#include "autograd/ops.h"
#include "autograd/tensor.h"

namespace vkflux {

/// One call, checked and contiguous: q[B, H, Nq, D], k, v[B, H, Nk, D], Nq and Nk at least 1.
struct AttentionProblem {
  Tensor q, k, v;
  Tensor key_mask;  // u8 [B, Nk] or undefined
  Tensor bias;      // f32 [H, Nq, Nk] or undefined
  bool causal = false;
  bool f16 = false;  // forward may round factors to f16
  float scale = 1;
  int64_t batch = 0, heads = 0, nq = 0, nk = 0, d = 0;

  Device& device() const { return q.device(); }
};

/// What backward reads and writes. Gradients that nobody wants are undefined; the others are uninitialised
/// and must be written in full.
struct AttentionGradients {
  Tensor o, lse, d_o;        // read; all contiguous
  Tensor dq, dk, dv, dbias;  // written
};

struct AttentionForm {
  const char* name;  // for VKFLUX_VARIANT=attention:name
  bool (*fits)(const AttentionProblem& p);
  /// Writes o[B, H, Nq, D] and lse[B, H, Nq], the log of each row's sum of exp(scores); lse is for backward
  /// alone, and its value for a row without keys is the form's own choice.
  void (*forward)(const AttentionProblem& p, const Tensor& o, const Tensor& lse);
  void (*backward)(const AttentionProblem& p, const AttentionGradients& g);
};

/// Row sums of dO O, [B H Nq] f32: what each probability of a row loses in the softmax's backward.
Tensor attention_delta(const AttentionProblem& p, const AttentionGradients& g);

/// What one product or more over the visible pairs costs; tensors are counted as read or written once.
Cost attention_cost(const AttentionProblem& p, double products, double query_tensors, double key_tensors);

/// kFlashAttention on cooperative matrices, forward alone: where the caller allows f16 and the device has
/// them.
extern const AttentionForm kCoopAttention;
/// Whether the tiles of kFlashAttention fit the device, whatever is fast there.
bool flash_fits(const AttentionProblem& p);
/// Online softmax over tiles in shared memory, for GPUs: no matrix of scores, whatever the sequence length.
extern const AttentionForm kFlashAttention;
/// The same products of slabs of scores on panels, with the softmax inside them, for CPUs.
extern const AttentionForm kPanelAttention;
/// Matrix products over slabs of scores; fits every call.
extern const AttentionForm kComposedAttention;

}  // namespace vkflux
