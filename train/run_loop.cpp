#include "train/run_loop.h"

#include <spdlog/spdlog.h>

#include <filesystem>

#include "model/io/file.h"
#include "model/io/json.h"
#include "train/metric_values.h"
#include "vk/error.h"

namespace vkflux {

namespace {

void write_parameters(const RunLoopOptions& o) {
  io::Json all{{"run", o.folder.name()}};
  all.update(flatten_parameters("", o.parameters));
  io::atomic_write(o.folder.file("params.json"), io::json_text(all, 1) + "\n");
}

/// False when somebody who wants the work to end cut it short.
bool whole(const std::function<void()>& work) {
  try {
    work();
    return true;
  } catch (const Error& e) {
    if (e.code() != ErrorCode::cancelled) throw;
    return false;
  }
}

}  // namespace

bool checkpoint_due(int64_t before, int64_t after, int64_t every) {
  return every > 0 && after / every > before / every;
}

bool run_to_end(Resumable& work, const RunLoopOptions& o, const std::function<bool()>& interrupted,
                const std::function<void()>& started, const std::function<void()>& after_step) {
  std::error_code ignored;
  const std::string checkpoint = o.folder.checkpoint();
  if (o.fresh) {
    o.folder.clear(o.results, [&](const std::string& path) { return work.inputs().reads(path); });
  } else if (std::filesystem::exists(checkpoint, ignored)) {
    work.load(checkpoint);
    if (work.inputs().changed()) work.save(checkpoint);  // so that what was accepted once isn't asked again
    spdlog::info("{}: resuming after {} {}", o.folder.name(), work.done(), o.unit);
  } else {
    o.folder.clear_events();
  }
  write_parameters(o);
  const int64_t first = work.done();
  work.add_sink(jsonl_sink(o.folder.metrics(), first));
  work.add_sink(tensorboard_sink(o.folder.file("events"), first));
  started();
  int64_t saved = -1;
  const auto save = [&] {
    if (saved != work.done()) work.save(checkpoint);
    saved = work.done();
  };
  while (!work.finished()) {
    const int64_t before = work.done();
    bool stop = !whole([&] { work.step(); });
    const int64_t now = work.done();
    stop |= interrupted() || (o.stop_after > first && now >= o.stop_after);
    if (checkpoint_due(before, now, o.save_every) || stop || work.finished()) save();
    if (now > before && !whole(after_step)) {
      stop = true;
      save();
    }
    if (stop && !work.finished()) {
      spdlog::warn("stopped after {} {}; the same command resumes", now, o.unit);
      return false;
    }
  }
  return true;
}

}  // namespace vkflux
