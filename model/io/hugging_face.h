// The cache that Hugging Face's programs keep: read only, never filled.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace vkflux::io {

/// $HF_HUB_CACHE, else $HF_HOME/hub, else huggingface/hub in $XDG_CACHE_HOME or ~/.cache.
std::string hugging_face_cache();

/// What ORGANISATION/NAME[@REVISION][/FILE] says; `name` is empty for any other text.
struct HubName {
  std::string name, revision, file;
};
HubName parse_hub_name(std::string_view text);

/// The folder of a repository's files: models--ORGANISATION--NAME/snapshots/HASH, where HASH is what
/// refs/REVISION says ("main" when empty), or the revision itself, or the only snapshot there is. Empty when
/// the cache has no such repository; Error io when it has none of this revision.
std::string hub_snapshot(const std::string& repository, const std::string& revision);
/// The same of a cache folder models--ORGANISATION--NAME itself; empty when it isn't one.
std::string snapshot_of_folder(const std::string& folder, const std::string& revision);
/// ORGANISATION/NAME of a path within the cache, else empty.
std::string hub_name_of(const std::string& path);
/// Snapshots of all repositories of the cache whose names contain `text` in any case, sorted.
std::vector<std::string> hub_snapshots_with(const std::string& text);

/// The path of what somebody names: as it is, or where the cache has ORGANISATION/NAME[@REVISION][/FILE] or a
/// folder of its own; a name that is neither comes back as it is. Error io when the cache has the repository
/// without that file or revision.
std::string located(const std::string& name);

/// The command that brings files of a repository into the cache; `include`: a pattern of files, or empty.
std::string hub_download(const std::string& repository, const std::string& include);

}  // namespace vkflux::io
