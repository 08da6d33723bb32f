"""Headroom's entry: page config, navigation, and the place where refused input is shown."""

import streamlit as st

from pages.shared import navigation, session

st.set_page_config(page_title="Headroom", page_icon=navigation.ICON, layout="wide")
page = st.navigation(navigation.pages(), position="hidden")
session.begin(page.url_path)
navigation.show()
navigation.run(page)
