#include "train/run_loop.h"

#include <spdlog/spdlog.h>

#include <filesystem>

#include "model/io/file.h"
#include "model/io/json.h"
#include "train/metric_values.h"

namespace vkflux {

namespace {

void write_parameters(const RunLoopOptions& o) {
  io::Json all{{"run", o.folder.name()}};
  all.update(flatten_parameters("", o.parameters));
  io::atomic_write(o.folder.file("params.json"), io::json_text(all, 1) + "\n");
}

}  // namespace

std::string RunFolder::name() const {
  return metric_namespace(io::last_name(path));
}

std::vector<std::string> run_files() {
  const RunFolder names{"."};
  return {names.checkpoint(), names.metrics(), names.file("params.json")};
}

bool checkpoint_due(int64_t before, int64_t after, int64_t every) {
  return every > 0 && after / every > before / every;
}

bool run_to_end(Resumable& work, const RunLoopOptions& o, const std::function<bool()>& interrupted,
                const std::function<void()>& started, const std::function<void()>& after_step) {
  std::error_code ignored;
  const std::string checkpoint = o.folder.checkpoint();
  if (!o.fresh && std::filesystem::exists(checkpoint, ignored)) {
    work.load(checkpoint);
    spdlog::info("{}: resuming after {} {}", o.folder.name(), work.done(), o.unit);
  }
  write_parameters(o);
  const int64_t first = work.done();
  work.add_sink(jsonl_sink(o.folder.metrics(), first));
  work.add_sink(tensorboard_sink(o.folder.file("events"), first));
  started();
  while (!work.finished()) {
    const int64_t before = work.done();
    work.step();
    const int64_t now = work.done();
    const bool stop = interrupted() || (o.stop_after > first && now >= o.stop_after);
    if (checkpoint_due(before, now, o.save_every) || stop || work.finished()) work.save(checkpoint);
    after_step();
    if (stop && !work.finished()) {
      spdlog::warn("stopped after {} {}; the same command resumes", now, o.unit);
      return false;
    }
  }
  return true;
}

}  // namespace vkflux
