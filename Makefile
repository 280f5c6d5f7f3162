# make demo    set everything up, segment a panorama with the node over ROS 2, show the result
#              PANORAMA=path POINT="u,v u,v"  your own panorama, and an object a click
# make test    set everything up, run the tests (make test-slow: the long ones)
# make test-web  the web page's tests, also those in a browser
# make heldout the held-out panoramas, made anew, and the shipped weights' table on them
#              PANORAMAS=folder PHOTOGRAPHS=folder INDEX=csv  what they are made from (docs/training.md)
# make check   lint, types, import rules, what the ROS distributions have
# make build   set up and build with colcon; then: source scripts/env.bash
# make clean   remove all that these have made
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-web heldout check build clean

STAMPS := .venv/.stamps
SOURCES := $(shell find msg srv sap_ros config launch scripts -type f -not -name '*.pyc' 2>/dev/null)
ENV := source scripts/env.bash &&
HELDOUT := bma-0 rathaus golden_bay empty_play_room

help:
	@sed -n 's/^# make/make/p' Makefile

$(STAMPS)/core: requirements/core.txt requirements/build.txt requirements/lock.txt setup.py pyproject.toml scripts/setup.sh
	@scripts/setup.sh core
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/ros: requirements/ros.txt requirements/lock.txt scripts/repair_ros_wheels.py $(STAMPS)/core
	@scripts/setup.sh ros
	@touch $@

$(STAMPS)/dev: requirements/dev.txt requirements/lock.txt $(STAMPS)/core
	@scripts/setup.sh dev
	@touch $@

install/.stamp: $(STAMPS)/ros CMakeLists.txt package.xml $(SOURCES)
	@rm -f $@
	@source scripts/env.bash && scripts/build.sh
	@touch $@

build: install/.stamp

demo: install/.stamp
	@$(ENV) sap demo $(if $(PANORAMA),"$(PANORAMA)") $(foreach point,$(POINT),--point "$(point)")

test: install/.stamp $(STAMPS)/dev
	@$(ENV) python -m pytest -m "not slow" --numprocesses 2 --dist loadfile

test-slow: install/.stamp $(STAMPS)/dev
	@$(ENV) python -m pytest -m slow

test-web: install/.stamp $(STAMPS)/dev
	@scripts/setup.sh browser
	@$(ENV) python -m pytest test/web

heldout: install/.stamp $(STAMPS)/dev
	@$(ENV) sap synth composite --backgrounds "$(PANORAMAS)" --photographs "$(PHOTOGRAPHS)" \
	  $(if $(INDEX),--index "$(INDEX)" --split val) $(foreach name,$(HELDOUT),--only $(name)) \
	  --count 40 --seed 900000 --out data/heldout
	@$(ENV) sap eval data/heldout --limit 16 --out data/heldout_eval

check: $(STAMPS)/dev
	@$(ENV) ruff check . && ruff format --check . && mypy && lint-imports \
	  && python scripts/check_rosdep.py && python scripts/check_ros_api.py

clean:
	rm -rf .venv build install log demo_out
