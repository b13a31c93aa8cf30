// PKWARE's APPNOTE.TXT, 4.3: local headers with data, a central directory, an end record; all little-endian.
#include "io/zip.h"

#include <cstring>

#include "base/check.h"

namespace awq {
namespace {

constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr uint64_t kEndBytes = 22, kLocatorBytes = 20, kCentralBytes = 46, kLocalBytes = 30, kComment = 0xffff;
constexpr uint16_t kExtra64 = 1;
constexpr uint32_t kIn64 = 0xffffffff;  // the value is in the zip64 record

[[noreturn]] void damaged(const std::string& name, std::string_view what, uint64_t at) {
  fail("open", "{}: {} at byte {}; this is no zip archive that can be read, or a download was cut off: fetch it again",
       name, what, at);
}

}  // namespace

struct ZipFile::Directory {
  uint64_t begin, end, entries;
};

std::span<const std::byte> ZipFile::part(uint64_t begin, uint64_t size) const {
  if (begin > bytes_.size() || size > bytes_.size() - begin)
    damaged(name_, fmt::format("{} bytes are not there", size), begin);
  return bytes_.subspan(begin, size);
}

template <class T>
T ZipFile::at(uint64_t offset) const {
  T value;
  std::memcpy(&value, part(offset, sizeof(T)).data(), sizeof(T));
  return value;
}

ZipFile::Directory ZipFile::directory() const {
  if (bytes_.size() < kEndBytes) damaged(name_, "no end record", 0);
  const uint64_t last = bytes_.size() - kEndBytes;
  uint64_t end = last;
  while (at<uint32_t>(end) != kEnd || at<uint16_t>(end + 20) != last - end) {
    if (end == 0 || last - end == kComment) damaged(name_, "no end record", end);
    --end;
  }
  if (end < kLocatorBytes || at<uint32_t>(end - kLocatorBytes) != kLocator64) {
    const uint64_t begin = at<uint32_t>(end + 16), size = at<uint32_t>(end + 12);
    part(begin, size);
    return {begin, begin + size, at<uint16_t>(end + 10)};
  }
  const auto record = at<uint64_t>(end - kLocatorBytes + 8);
  if (part(record, 56); at<uint32_t>(record) != kEnd64) damaged(name_, "no zip64 end record", record);
  const auto begin = at<uint64_t>(record + 48), size = at<uint64_t>(record + 40);
  part(begin, size);
  return {begin, begin + size, at<uint64_t>(record + 32)};
}

std::span<const std::byte> ZipFile::content(uint64_t header, uint64_t size) const {
  if (part(header, kLocalBytes); at<uint32_t>(header) != kLocal) damaged(name_, "no file header", header);
  return part(header + kLocalBytes + at<uint16_t>(header + 26) + at<uint16_t>(header + 28), size);
}

uint64_t ZipFile::add_entry(uint64_t entry, uint64_t end) {
  if (end - entry < kCentralBytes || at<uint32_t>(entry) != kCentral) damaged(name_, "no directory entry", entry);
  const uint64_t name_bytes = at<uint16_t>(entry + 28), extra = entry + kCentralBytes + name_bytes,
                 extra_end = extra + at<uint16_t>(entry + 30), next = extra_end + at<uint16_t>(entry + 32);
  if (next > end) damaged(name_, "a directory entry beyond the directory", entry);
  uint64_t size = at<uint32_t>(entry + 24), stored = at<uint32_t>(entry + 20), header = at<uint32_t>(entry + 42);
  for (uint64_t field = extra; extra_end - field >= 4;) {
    const uint64_t field_end = field + 4 + at<uint16_t>(field + 2);
    if (field_end > extra_end) damaged(name_, "a directory field beyond its entry", field);
    uint64_t value = field + 4;
    for (uint64_t* v : {&size, &stored, &header})
      if (at<uint16_t>(field) == kExtra64 && *v == kIn64 && field_end - value >= 8) {
        *v = at<uint64_t>(value);
        value += 8;
      }
    field = field_end;
  }
  const auto text = part(entry + kCentralBytes, name_bytes);
  const std::string file(reinterpret_cast<const char*>(text.data()), text.size());
  if (at<uint16_t>(entry + 10) != 0 || size != stored || at<uint16_t>(entry + 8) & 1)
    damaged(name_, "a compressed or encrypted file, where only stored ones are read,", entry);
  if (!files_.emplace(file, content(header, size)).second) damaged(name_, "a file that is there twice", entry);
  return next;
}

ZipFile::ZipFile(std::span<const std::byte> bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {
  const Directory d = directory();
  uint64_t entry = d.begin;
  for (uint64_t i = 0; i < d.entries; ++i) entry = add_entry(entry, d.end);
  if (entry != d.end) damaged(name_, "a directory of another length", entry);
}

}  // namespace awq
