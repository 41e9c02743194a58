// How near students come to full attention on sampling runs, without training on them.
#pragma once

#include <cstdint>

#include "model/attention/hkr/students.h"
#include "train/distill/run_sequence.h"

namespace vkflux {

/// Mean cosine distance (over tokens, heads, steps and passes) of every student beside full attention, at all
/// queries of `count` whole runs. The transformer uses full attention throughout.
ByLayer<double> student_distances(RunSequence& runs, const Students& students, int64_t count);

}  // namespace vkflux
