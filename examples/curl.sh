#!/bin/sh
# curl with a flashmla server: npx flashmla serve, then sh examples/curl.sh
set -eu
url="${FLASHMLA_URL:-http://127.0.0.1:8000}"
ask() {
  curl --fail-with-body --silent --show-error --no-buffer --max-time 60 "$url$1" \
    -H "authorization: Bearer ${FLASHMLA_API_KEY:-none}" -H "content-type: application/json" -d "$2"
  echo
}

# An answer, and one that streams.
ask /v1/chat/completions '{"messages": [{"role": "user", "content": "Good morrow!"}], "max_tokens": 40}'
ask /v1/completions '{"prompt": "ROMEO:\n", "max_tokens": 10, "stream": true, "temperature": 0}'

# The ids of a text.
ask /tokenize '{"prompt": "But soft!"}'
