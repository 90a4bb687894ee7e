curl -X POST http://localhost:1234/v1/audio/transcriptions \
  -F "file=@sample.wav" \
  -F "model=whisper-base"
