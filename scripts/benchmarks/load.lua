-- Sends the requests of a file in turn, whole requests apart by 0x1e, from a place in it on; prints what wrk measured.
local requests, sent = {}, 0

function init(arguments)
  for request in io.open(arguments[1], "rb"):read("*a"):gmatch("[^\30]+") do
    requests[#requests + 1] = request
  end
  sent = tonumber(arguments[2])
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"failed":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout
  ))
end
